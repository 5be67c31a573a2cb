# The proxy alone, without the quickstart. `docker build -t streamseal .`

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin streamseal \
    && mkdir /state

# glibc, libgcc and CA certificates; no shell, no root.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/streamseal /usr/local/bin/streamseal
COPY --from=build /src/LICENSE /usr/share/doc/streamseal/LICENSE
# The config store lives here: mount a volume.
COPY --from=build --chown=nonroot:nonroot /state /var/lib/streamseal
WORKDIR /var/lib/streamseal
VOLUME /var/lib/streamseal
# Clients, and the admin listener. There is no HEALTHCHECK, for there is nothing in here that could ask: let what
# runs the container ask /health and /ready.
EXPOSE 8443 9090
ENTRYPOINT ["/usr/local/bin/streamseal"]
CMD ["serve", "--config", "/etc/streamseal/streamseal.toml"]
