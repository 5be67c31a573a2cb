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
EXPOSE 8443
ENTRYPOINT ["/usr/local/bin/streamseal"]
CMD ["serve", "--config", "/etc/streamseal/streamseal.toml"]
