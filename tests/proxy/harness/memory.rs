//! Looking for secrets in the memory of a running program, through `/proc/PID/mem`.

use std::{
    fmt,
    fs::{self, File},
    os::unix::fs::FileExt as _,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use memchr::memmem::Finder;
use rustix::process::{Pid, Signal, kill_process};

use super::{base64, until};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// Something that must not be in memory, in whole or in part.
pub struct Secret {
    what: String,
    forms: Vec<(&'static str, Finder<'static>)>,
}

impl Secret {
    /// A key, either half of it, and either end of its base64.
    pub fn key(what: &str, key: &[u8; 32]) -> Self {
        let text = base64(key);
        let packed = huffman(text.as_bytes());
        // As clients send it, the end has `=` in it, which nothing else has there.
        let forms = [
            ("first half", &key[..16]),
            ("second half", &key[16..]),
            ("start of the base64", &text.as_bytes()[..20]),
            ("end of the base64", &text.as_bytes()[24..]),
            ("start of the base64 as HTTP/2 packs it", &packed[..16]),
            (
                "end of the base64 as HTTP/2 packs it",
                &packed[packed.len() - 16..],
            ),
        ];
        Self::new(what, &forms)
    }

    /// A text.
    pub fn text(what: &str, text: &str) -> Self {
        Self::new(what, &[("text", text.as_bytes())])
    }

    /// An API key: pieces of its text, also as HTTP/2 packs it, and the auth secret in it.
    pub fn api_key(what: &str, text: &str) -> Self {
        let body = &text.as_bytes()[6..];
        let token = URL_SAFE_NO_PAD.decode(body).unwrap();
        let packed = huffman(format!("Bearer {text}").as_bytes());
        let forms = [
            ("start of the text", &body[2..22]),
            ("middle of the text", &body[28..48]),
            ("end of the text", &body[56..]),
            ("auth secret", &token[1..17]),
            ("middle of the text as HTTP/2 packs it", &packed[16..32]),
            (
                "end of the text as HTTP/2 packs it",
                &packed[packed.len() - 16..],
            ),
        ];
        Self::new(what, &forms)
    }

    fn new(what: &str, forms: &[(&'static str, &[u8])]) -> Self {
        let finder = |form: &[u8]| Finder::new(form).into_owned();
        Self {
            what: what.to_owned(),
            forms: forms
                .iter()
                .map(|(name, form)| (*name, finder(form)))
                .collect(),
        }
    }

    fn longest(&self) -> usize {
        let lengths = self.forms.iter().map(|(_, finder)| finder.needle().len());
        lengths.max().unwrap_or_default()
    }
}

/// Where a secret is.
pub struct Found {
    /// Which secret, and which part of it.
    pub what: String,
    mapping: String,
    at: u64,
    around: String,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            mapping,
            at,
            around,
        } = self;
        write!(f, "{what} at {at:x} in {mapping}: {around}")
    }
}

/// A base64 text in HPACK's Huffman code (RFC 7541, appendix B), as most clients send it.
fn huffman(text: &[u8]) -> Vec<u8> {
    // Characters by the length of their codes, in the order of their codes, with the first code.
    const CODES: [(usize, u32, &[u8]); 5] = [
        (5, 0x0, b"012aceiost"),
        (6, 0x14, b" %-./3456789=A_bdfghlmnpru"),
        (7, 0x5c, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
        (8, 0xf8, b"&*,;XZ"),
        (11, 0x7fb, b"+"),
    ];
    let mut bits = String::new();
    for character in text {
        let code = CODES.iter().find_map(|(length, first, characters)| {
            let at = characters.iter().position(|c| c == character)?;
            Some(format!("{:0length$b}", *first as usize + at))
        });
        bits += &code.expect("no base64");
    }
    while !bits.len().is_multiple_of(8) {
        bits.push('1');
    }
    let bytes = bits.as_bytes().chunks(8);
    let byte = |bits: &[u8]| u8::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap();
    bytes.map(byte).collect()
}

#[test]
fn huffman_is_that_of_rfc_7541() {
    // Its examples C.6.1 and C.6.2.
    assert_eq!(huffman(b"302"), [0x64, 0x02]);
    assert_eq!(huffman(b"307"), [0x64, 0x0e, 0xff]);
}

/// Every place in the memory of this process that holds a part of a secret. The process stands still
/// while it is searched.
///
/// # Panics
/// When its memory cannot be read: a search that sees nothing proves nothing.
pub async fn search(process: u32, secrets: &[Secret]) -> Vec<Found> {
    let stopped = Stopped::new(process).await;
    let path = format!("/proc/{process}/mem");
    let memory = File::open(&path).unwrap_or_else(|error| {
        panic!(
            "cannot read {path}: {error}. The program does not let itself be traced, so this test must \
             run as root or with CAP_SYS_PTRACE"
        )
    });
    let pages = File::open(format!("/proc/{process}/pagemap")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mappings = maps.lines().filter(|line| is_readable(line));
    let found = mappings.flat_map(|mapping| search_mapping(&memory, &pages, mapping, secrets));
    let found = found.collect();
    drop(stopped);
    found
}

/// Whether this line of `/proc/PID/maps` is of memory that the process can read. What the kernel maps
/// for its own clock is none of the process's.
fn is_readable(line: &str) -> bool {
    let permissions = line.split(' ').nth(1).unwrap();
    permissions.starts_with('r') && !line.contains("[vvar") && !line.contains("[vsyscall]")
}

fn search_mapping(memory: &File, pages: &File, mapping: &str, secrets: &[Secret]) -> Vec<Found> {
    // A secret may lie across two chunks.
    let overlap = secrets
        .iter()
        .map(Secret::longest)
        .max()
        .unwrap_or_default();
    let mut found = Vec::new();
    let mut buffer = vec![0; CHUNK + overlap];
    for (start, end) in written(pages, mapping) {
        for at in (start..end).step_by(CHUNK) {
            let length = usize::try_from(end - at).unwrap().min(buffer.len());
            let chunk = &mut buffer[..length];
            let read = memory.read_exact_at(chunk, at);
            read.unwrap_or_else(|error| panic!("cannot read {mapping}: {error}"));
            for secret in secrets {
                found.extend(search_chunk(chunk, secret).map(|(what, offset)| Found {
                    what,
                    mapping: mapping.to_owned(),
                    at: at + offset as u64,
                    around: around(chunk, offset),
                }));
            }
        }
    }
    found
}

fn search_chunk(chunk: &[u8], secret: &Secret) -> impl Iterator<Item = (String, usize)> {
    secret.forms.iter().flat_map(move |(form, finder)| {
        let what = format!("{}: {form}", secret.what);
        let offsets = finder.find_iter(chunk);
        offsets.map(move |offset| (what.clone(), offset))
    })
}

/// The parts of a mapping that the process has written to: pages in memory or in swap, but for those that
/// are still as they are in the mapped file.
fn written(pages: &File, mapping: &str) -> Vec<(u64, u64)> {
    let (range, rest) = mapping.split_once(' ').unwrap();
    let (start, end) = range.split_once('-').unwrap();
    let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
    let page = page_size();
    // Eight bytes for each page; the top bits say present, swapped, and of a file.
    let mut entries = vec![0; usize::try_from((end - start) / page).unwrap() * 8];
    pages.read_exact_at(&mut entries, start / page * 8).unwrap();
    let (entries, _) = entries.as_chunks::<8>();
    let mut parts: Vec<(u64, u64)> = Vec::new();
    for (at, entry) in (start..)
        .step_by(usize::try_from(page).unwrap())
        .zip(entries)
    {
        let [present, swapped, file] = [0x80, 0x40, 0x20].map(|bit| entry[7] & bit != 0);
        if !(present || swapped) || (file && rest.contains('/')) {
            continue;
        }
        match parts.last_mut() {
            Some((_, end)) if *end == at => *end += page,
            _ => parts.push((at, at + page)),
        }
    }
    parts
}

/// The size of a page, as the kernel tells every process.
fn page_size() -> u64 {
    const AT_PAGESZ: u64 = 6;
    let told = fs::read("/proc/self/auxv").unwrap();
    let (pairs, _) = told.as_chunks::<16>();
    let number = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap());
    let pair = pairs.iter().find(|pair| number(&pair[..8]) == AT_PAGESZ);
    number(&pair.unwrap()[8..])
}

/// What stands before and after, for finding out whose memory it is.
fn around(chunk: &[u8], offset: usize) -> String {
    let part = &chunk[offset.saturating_sub(64)..(offset + 96).min(chunk.len())];
    part.escape_ascii().to_string()
}

/// A process that stands still until this is dropped.
struct Stopped(Pid);

impl Stopped {
    async fn new(process: u32) -> Self {
        let pid = Pid::from_raw(process.try_into().unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        let stopped = Self(pid);
        until("the program stands still", async || {
            let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
            status.contains("State:\tT")
        })
        .await;
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        kill_process(self.0, Signal::CONT).unwrap();
    }
}

/// How many connections this process has on this port of its own.
pub fn connections(process: u32, port: u16) -> usize {
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|to| {
            let inode = to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let table = fs::read_to_string(format!("/proc/{process}/net/tcp")).unwrap();
    let own = format!(":{port:04X}");
    let lines = table.lines().skip(1).filter(|line| {
        // Local address, peer, state and, further on, the inode. `0A` listens.
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&own) && fields[3] != "0A" && sockets.iter().any(|s| s == fields[9])
    });
    lines.count()
}
