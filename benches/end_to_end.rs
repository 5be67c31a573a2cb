//! End to end over real TLS with the Rust SDK: direct, passed through, and encrypted, side by side.
//!
//! ```text
//! client (this process) ── TLS ──▶ s2-lite                            direct
//! client (this process) ── TLS ──▶ streamseal ── h2c ──▶ s2-lite      plain, aegis-256, aes-256-gcm
//! ```
//!
//! Each of the three is a process of its own, so that the CPU time of the proxy can be told apart. They
//! share the machine, so only figures of one run compare. The variants take turns within a round, in
//! another order each round; a figure is the median over rounds, and a ratio the median of the ratios.

#![allow(
    clippy::print_stdout,
    reason = "a benchmark prints its figures, and its processes their addresses"
)]

use std::{
    env,
    error::Error,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::StreamExt as _;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use rand::Rng as _;
use rustls_pki_types::PrivateKeyDer;
use s2_lite::{backend::Backend, handlers};
use s2_sdk::{
    S2, S2Stream,
    append_session::AppendSessionConfig,
    types::{
        AccountEndpoint, AppendInput, AppendRecord, AppendRecordBatch, BasinConfig, BasinEndpoint,
        CreateBasinInput, CreateStreamInput, EncryptionAlgorithm, ReadFrom, ReadInput, ReadLimits,
        ReadSessionConfig, ReadStart, ReadStop, S2Config, S2Endpoints,
    },
};
use slatedb::{Db, Settings, object_store::memory::InMemory};
use streamseal::{cli::serve, config::Config, server, store, upstream};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Tells a process of the benchmark which of the three it is.
const ROLE: &str = "STREAMSEAL_BENCH_ROLE";
/// Tells the proxy where its upstream listens.
const UPSTREAM: &str = "STREAMSEAL_BENCH_UPSTREAM";

/// Rounds; each has fresh processes. `STREAMSEAL_BENCH_ROUNDS` sets another number.
const ROUNDS: usize = 15;
/// Bytes of record bodies per session.
const SESSION_BYTES: usize = 64 * MIB;
/// Bytes of record bodies per batch: what is left to 1 MiB takes the growth of the sealed batch.
const BATCH_BYTES: usize = 850 * 1024;
/// Unary calls per round and variant.
const UNARY_CALLS: usize = 200;
/// How often the upstream makes appends durable. s2-lite itself takes 5 ms, which would hide the proxy.
const FLUSH_EVERY: Duration = Duration::from_millis(1);
/// HTTP/2 stream window of s2-lite.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// Units of CPU time in `/proc/PID/stat`, a constant of Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Encrypted must reach this share of pass-through.
const FLOOR: f64 = 0.8;

const MIB: usize = 1024 * 1024;
const KEY: [u8; 32] = *b"end to end benchmark, not secret";

/// Who answers the client, and how its records are encrypted.
struct Variant {
    name: &'static str,
    through_proxy: bool,
    cipher: Option<EncryptionAlgorithm>,
}

const PASS: usize = 1;
const ENCRYPTED: [usize; 2] = [2, 3];
const VARIANTS: [Variant; 4] = [
    Variant {
        name: "direct",
        through_proxy: false,
        cipher: None,
    },
    Variant {
        name: "pass-through",
        through_proxy: true,
        cipher: None,
    },
    Variant {
        name: "aegis-256",
        through_proxy: true,
        cipher: Some(EncryptionAlgorithm::Aegis256),
    },
    Variant {
        name: "aes-256-gcm",
        through_proxy: true,
        cipher: Some(EncryptionAlgorithm::Aes256Gcm),
    },
];

/// Record sizes of the sessions, with the first of their four rows.
const SIZES: [(usize, usize); 2] = [(1024, 0), (16 * 1024, 4)];
/// First row of the unary calls.
const UNARY: usize = 8;
/// Which way is better, and the name, row by row.
const ROWS: [(Better, &str); 12] = [
    (Better::Higher, "append session,  1 KiB, MiB/s"),
    (Better::Higher, "read session,    1 KiB, MiB/s"),
    (Better::Unjudged, "append,  1 KiB, proxy CPU s/GB"),
    (Better::Unjudged, "read,    1 KiB, proxy CPU s/GB"),
    (Better::Higher, "append session, 16 KiB, MiB/s"),
    (Better::Higher, "read session,   16 KiB, MiB/s"),
    (Better::Unjudged, "append, 16 KiB, proxy CPU s/GB"),
    (Better::Unjudged, "read,   16 KiB, proxy CPU s/GB"),
    (Better::Lower, "unary append, 1 KiB, p50 ms"),
    (Better::Lower, "unary append, 1 KiB, p99 ms"),
    (Better::Lower, "unary read,   1 KiB, p50 ms"),
    (Better::Lower, "unary read,   1 KiB, p99 ms"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    Higher,
    Lower,
    /// Shown, but encryption may cost CPU time.
    Unjudged,
}

/// One figure per row, variant and round.
type Figures = [[Vec<f64>; VARIANTS.len()]; ROWS.len()];

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match env::var(ROLE).as_deref() {
        Ok("upstream") => runtime.block_on(run_upstream()),
        Ok("proxy") => runtime.block_on(run_proxy(env::var(UPSTREAM)?)),
        Ok(_) | Err(_) => runtime.block_on(run_client()),
    }
}

// --- the client -------------------------------------------------------------------------------------

async fn run_client() -> Result<()> {
    let rounds = env::var("STREAMSEAL_BENCH_ROUNDS")
        .map(|rounds| rounds.parse())
        .unwrap_or(Ok(ROUNDS))?;
    let started = Instant::now();
    let mut figures = Figures::default();
    let mut peak_kib = 0;
    for round in 0..rounds {
        peak_kib = peak_kib.max(run_round(round, &mut figures).await?);
        eprintln_progress(round + 1, rounds, started)?;
    }
    show(&figures);
    println!("\npeak memory of the proxy: {} MiB", peak_kib / 1024);
    Ok(())
}

/// Runs every variant once against fresh processes; returns the proxy's peak memory in KiB.
async fn run_round(round: usize, figures: &mut Figures) -> Result<u64> {
    let (_upstream, addresses) = Process::start("upstream", &[])?;
    let (plain, tls) = addresses.split_once(' ').ok_or("no addresses")?;
    let (proxy, address) = Process::start("proxy", &[(UPSTREAM, plain)])?;
    let mut streams = Vec::new();
    for variant in &VARIANTS {
        let at = if variant.through_proxy { &address } else { tls };
        streams.push(Streams::create(variant, at).await?);
    }
    let order = |step| (step + round) % VARIANTS.len();
    for (size, row) in SIZES {
        for at in (0..VARIANTS.len()).map(order) {
            let stream = streams[at].stream(&format!("size-{size}")).await?;
            let figures = &mut figures[row..row + 4];
            let (rate, cpu) = timed(&proxy, append_session(&stream, size)).await?;
            figures[0][at].push(rate);
            figures[2][at].push(cpu);
            let (rate, cpu) = timed(&proxy, read_session(&stream)).await?;
            figures[1][at].push(rate);
            figures[3][at].push(cpu);
        }
    }
    for at in (0..VARIANTS.len()).map(order) {
        let stream = streams[at].stream("unary").await?;
        for (row, milliseconds) in (UNARY..).zip(unary_calls(&stream).await?) {
            figures[row][at].push(milliseconds);
        }
    }
    proxy.peak_kib()
}

/// A client of one variant, in a basin of its own.
struct Streams {
    basin: s2_sdk::S2Basin,
    is_encrypted: bool,
}

impl Streams {
    async fn create(variant: &Variant, address: &str) -> Result<Self> {
        let endpoint = format!("https://{address}");
        let endpoints = S2Endpoints::new(
            AccountEndpoint::new(&endpoint)?,
            BasinEndpoint::new(&endpoint)?,
        )?;
        let config = S2Config::new("ignored")
            .with_endpoints(endpoints)
            .with_request_timeout(Duration::from_secs(30))
            .with_insecure_skip_cert_verification(true);
        let s2 = S2::new(config)?;
        let name: s2_sdk::types::BasinName = format!("bench-{}", variant.name).parse()?;
        let mut config = BasinConfig::new();
        if let Some(cipher) = variant.cipher {
            config = config.with_stream_cipher(cipher);
        }
        let input = CreateBasinInput::new(name.clone()).with_config(config);
        s2.create_basin(input).await?;
        Ok(Self {
            basin: s2.basin(name),
            is_encrypted: variant.cipher.is_some(),
        })
    }

    async fn stream(&self, name: &str) -> Result<S2Stream> {
        let input = CreateStreamInput::new(name.parse()?);
        self.basin.create_stream(input).await?;
        let stream = self.basin.stream(name.parse()?);
        if self.is_encrypted {
            return Ok(stream.with_encryption_key(STANDARD.encode(KEY).parse()?));
        }
        Ok(stream)
    }
}

/// MiB per second of `session`, and seconds of the proxy's CPU time per GB.
async fn timed(
    proxy: &Process,
    session: impl Future<Output = Result<usize>>,
) -> Result<(f64, f64)> {
    let (cpu, started) = (proxy.cpu_seconds()?, Instant::now());
    let bytes = session.await? as f64;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = proxy.cpu_seconds()? - cpu;
    Ok((bytes / MIB as f64 / seconds, cpu / bytes * 1e9))
}

async fn append_session(stream: &S2Stream, size: usize) -> Result<usize> {
    let body = random(BATCH_BYTES + size);
    let per_batch = BATCH_BYTES / size;
    let batches = SESSION_BYTES / (per_batch * size);
    let session = stream.append_session(AppendSessionConfig::new());
    for _ in 0..batches {
        let records =
            (0..per_batch).map(|at| AppendRecord::new(body.slice(at * size..(at + 1) * size)));
        let records = records.collect::<std::result::Result<Vec<_>, _>>()?;
        let input = AppendInput::new(AppendRecordBatch::try_from_iter(records)?);
        // The session itself waits for the acks.
        let _ticket = session.submit(input).await?;
    }
    session.close().await?;
    Ok(batches * per_batch * size)
}

async fn read_session(stream: &S2Stream) -> Result<usize> {
    let tail = usize::try_from(stream.check_tail().await?.seq_num)?;
    let input = read_input(0, tail);
    let mut session = stream
        .read_session(input, ReadSessionConfig::default())
        .await?;
    let (mut records, mut bytes) = (0, 0);
    while let Some(batch) = session.next().await {
        let batch = batch?;
        records += batch.records.len();
        bytes += batch.records.iter().map(|r| r.body.len()).sum::<usize>();
    }
    if records != tail {
        return Err(format!("read {records} records of {tail}").into());
    }
    Ok(bytes)
}

/// p50 and p99 of appends, then of reads, in milliseconds.
async fn unary_calls(stream: &S2Stream) -> Result<[f64; 4]> {
    let body = random(1024);
    let (mut appends, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..UNARY_CALLS {
        let record = AppendRecord::new(body.clone())?;
        let input = AppendInput::new(AppendRecordBatch::try_from_iter([record])?);
        let started = Instant::now();
        stream.append(input).await?;
        appends.push(started.elapsed().as_secs_f64() * 1e3);
    }
    for at in 0..UNARY_CALLS {
        let started = Instant::now();
        let batch = stream.read(read_input(at as u64, 1)).await?;
        reads.push(started.elapsed().as_secs_f64() * 1e3);
        if batch.records.first().map(|record| &record.body) != Some(&body) {
            return Err("read something else than was appended".into());
        }
    }
    let (appends, reads) = (sorted(&appends), sorted(&reads));
    let at = |sorted: &[f64], share: f64| sorted[(sorted.len() as f64 * share) as usize];
    Ok([
        at(&appends, 0.5),
        at(&appends, 0.99),
        at(&reads, 0.5),
        at(&reads, 0.99),
    ])
}

fn read_input(from: u64, count: usize) -> ReadInput {
    ReadInput::new()
        .with_start(ReadStart::new().with_from(ReadFrom::SeqNum(from)))
        .with_stop(ReadStop::new().with_limits(ReadLimits::new().with_count(count)))
}

fn random(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    rand::rng().fill_bytes(&mut bytes);
    bytes.into()
}

// --- the table --------------------------------------------------------------------------------------

fn show(figures: &Figures) {
    println!(
        "{:<32}{:>10}{:>14}{:>12}{:>13}{:>14}{:>12}",
        "", "direct", "pass-through", "aegis-256", "aes-256-gcm", "aegis / pass", "gcm / pass"
    );
    let mut below = Vec::new();
    for ((better, name), row) in ROWS.iter().zip(figures) {
        print!("{name:<32}");
        for (rounds, width) in row.iter().zip([10, 14, 12, 13]) {
            print!("{:>width$.2}", median(rounds));
        }
        for (at, width) in ENCRYPTED.into_iter().zip([14, 12]) {
            let ratio = ratio(&row[PASS], &row[at], *better);
            print!("{ratio:>width$.2}");
            if *better != Better::Unjudged && ratio < FLOOR {
                below.push(format!("{name}: {} at {ratio:.2}", VARIANTS[at].name));
            }
        }
        println!();
    }
    println!("\nRatios above 1 are in favour of the encrypted stream, but for CPU time.");
    for figure in below {
        println!("BELOW {FLOOR} OF PASS-THROUGH: {figure}");
    }
}

/// Median over rounds of how well `encrypted` does against `pass`.
fn ratio(pass: &[f64], encrypted: &[f64], better: Better) -> f64 {
    let ratios: Vec<f64> = pass
        .iter()
        .zip(encrypted)
        .map(|(pass, encrypted)| match better {
            Better::Higher | Better::Unjudged => encrypted / pass,
            Better::Lower => pass / encrypted,
        })
        .collect();
    median(&ratios)
}

fn median(values: &[f64]) -> f64 {
    sorted(values)
        .get(values.len() / 2)
        .copied()
        .unwrap_or(f64::NAN)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn eprintln_progress(round: usize, rounds: usize, started: Instant) -> io::Result<()> {
    let seconds = started.elapsed().as_secs();
    writeln!(
        io::stderr(),
        "round {round} of {rounds} done after {seconds} s"
    )
}

// --- the other processes ----------------------------------------------------------------------------

/// Another process of the benchmark. Ends with the value.
struct Process(Child);

impl Process {
    /// Starts one and returns what it printed first: where it listens.
    fn start(role: &str, variables: &[(&str, &str)]) -> Result<(Self, String)> {
        let child = Command::new(env::current_exe()?)
            .env(ROLE, role)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut process = Self(child);
        let out = process.0.stdout.take().ok_or("no standard output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        match line.trim() {
            "" => Err(format!("the {role} process did not start").into()),
            line => Ok((process, line.to_owned())),
        }
    }

    /// CPU time so far, in the program and in the system for it.
    fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The second field is a name in parentheses. User and system time are the 14th and 15th.
        let (_, after_name) = stat.rsplit_once(") ").ok_or("unknown stat")?;
        let fields = after_name.split(' ').skip(11).take(2);
        let ticks: f64 = fields
            .map(str::parse::<f64>)
            .sum::<std::result::Result<_, _>>()?;
        Ok(ticks / TICKS_PER_SECOND)
    }

    fn peak_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|line| line.split_whitespace().next());
        Ok(peak.ok_or("unknown status")?.parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Tells the client where this process listens, then serves until the client is gone.
async fn announce(addresses: String) -> Result<()> {
    println!("{addresses}");
    let until_end = || io::stdin().read_to_end(&mut Vec::new());
    tokio::task::spawn_blocking(until_end).await??;
    Ok(())
}

async fn run_proxy(upstream: String) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let endpoint = format!("http://{upstream}");
    let config = Config {
        listen: server::Config {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: server::TlsConfig {
                self_signed: true,
                ..server::TlsConfig::default()
            },
            ..server::Config::default()
        },
        admin: server::admin::Config {
            address: server::admin::OptionalAddress::NONE,
            ..server::admin::Config::default()
        },
        upstream: upstream::Config {
            account_endpoint: endpoint.clone(),
            basin_endpoint: endpoint,
            ..upstream::Config::default()
        },
        store: store::Config {
            path: directory.path().join("streamseal.redb"),
            create: true,
            ..store::Config::default()
        },
        ..Config::default()
    };
    let running = serve::start(&config).await?;
    announce(running.local_addr().to_string()).await
}

async fn run_upstream() -> Result<()> {
    let settings = Settings {
        flush_interval: Some(FLUSH_EVERY),
        ..Settings::default()
    };
    let db = Db::builder("bench", Arc::new(InMemory::new()))
        .with_settings(settings)
        .build()
        .await?;
    let backend = Backend::new(db, bytesize::ByteSize::mib(10));
    s2_lite::backend::bgtasks::spawn(&backend);
    let plain = TcpListener::bind("127.0.0.1:0").await?;
    let tls = TcpListener::bind("127.0.0.1:0").await?;
    let addresses = format!("{} {}", plain.local_addr()?, tls.local_addr()?);
    tokio::spawn(serve_lite(plain, None, backend.clone()));
    tokio::spawn(serve_lite(tls, Some(acceptor()?), backend));
    announce(addresses).await
}

async fn serve_lite(listener: TcpListener, tls: Option<TlsAcceptor>, backend: Backend) {
    let service = TowerToHyperService::new(handlers::router().with_state(backend));
    while let Ok((io, _)) = listener.accept().await {
        // A socket without it is slower, no more.
        let _no_delay = io.set_nodelay(true);
        let (service, tls) = (service.clone(), tls.clone());
        tokio::spawn(async move {
            let mut http = auto::Builder::new(TokioExecutor::new());
            http.http2().initial_stream_window_size(WINDOW_BYTES);
            let Some(tls) = tls else {
                return http.serve_connection(TokioIo::new(io), service).await;
            };
            let io = tls.accept(io).await?;
            http.serve_connection(TokioIo::new(io), service).await
        });
    }
}

fn acceptor() -> Result<TlsAcceptor> {
    let made =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
