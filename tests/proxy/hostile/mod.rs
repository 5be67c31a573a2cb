//! What an attacker tries and what comes of it: the threat model as tables of attack and outcome, each
//! row of which is run.

mod answers;
mod clients;
mod endless;
mod existence;
mod floods;
mod leads;
mod parts;
mod script;
mod slow;
mod threats;
mod wire;

use self::{
    On::{Appends, Everything, Reads, Sessions},
    Outcome::{BrokenOff, Ends, Named, Refused},
    script::{
        Reply, ack, ack_bytes, acks, bomb, broken, frames, huge_numbers, many_records,
        other_cipher, other_stream, plain, renumbered, reordered, repeated, replayed, status,
        terminal, typed, unary_ack,
    },
};

/// One thing that an upstream does instead of answering as S2 would.
struct Attack {
    /// What it does.
    name: &'static str,
    /// To which requests of a stream with encryption.
    on: On,
    /// How.
    reply: fn() -> Reply,
    /// What the client gets.
    outcome: Outcome,
}

/// Requests of clients. Each is made in every encoding it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    /// Unary appends, append sessions and reads.
    Everything,
    /// Unary appends of two records.
    Appends,
    /// Append sessions with two inputs on their way, of two records and of one.
    Sessions,
    /// Reads, unary and sessions.
    Reads,
}

/// What the client gets. In no case does it get the forger's records, an ack of another number of
/// records than it sent, or does the upstream get plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// An error with this status and code, written as the client's encoding has it.
    Refused(u16, &'static str),
    /// A session breaks off, a unary request gets 500 `other`.
    BrokenOff,
    /// The session ends without an ack, which S2's clients take for an error.
    Ends,
    /// It passes: S2's own encryption does not detect it either, and the README says so in these words.
    Named(&'static str),
}

/// 500 `other`: not retried by clients, for an append may have taken effect.
const UNUSABLE: Outcome = Refused(500, "other");
const TAMPERED: Outcome = Refused(400, "decryption_failed");
const REORDERED: Outcome = Named("the upstream can reorder, repeat or drop records, renumber them");
const REPLAYED: Outcome = Named("Records of a deleted stream can be replayed into a new one");
const FORGED_ACK: Outcome = Named("timestamps, tails and acknowledgements are not authenticated");

#[rustfmt::skip]
const ATTACKS: &[Attack] = &[
    // Answers that say "success", or nothing, where only 200 and S2's own format do.
    attack("200 with plain records as JSON",       Reads,      || typed(200, "application/json"),     UNUSABLE),
    attack("200 with plain records as protobuf",   Reads,      || typed(200, "application/protobuf"), UNUSABLE),
    attack("200 with plain records as events",     Reads,      || typed(200, "text/event-stream"),    UNUSABLE),
    attack("200 with a web page",                  Everything, || typed(200, "text/html"),            UNUSABLE),
    attack("200 without a type",                   Everything, || typed(200, ""),                     UNUSABLE),
    attack("201",                                  Everything, || status(201),                        UNUSABLE),
    attack("202",                                  Everything, || status(202),                        UNUSABLE),
    attack("204",                                  Everything, || status(204),                        UNUSABLE),
    attack("206, as if a part had been asked for", Everything, || status(206),                        UNUSABLE),
    attack("226",                                  Everything, || status(226),                        UNUSABLE),
    attack("299",                                  Everything, || status(299),                        UNUSABLE),
    attack("300",                                  Everything, || status(300),                        UNUSABLE),
    attack("301 to another host",                  Everything, || status(301),                        UNUSABLE),
    attack("302 to another host",                  Everything, || status(302),                        UNUSABLE),
    attack("303 to another host",                  Everything, || status(303),                        UNUSABLE),
    attack("304, as if the client had it",         Everything, || status(304),                        UNUSABLE),
    attack("307 to another host",                  Everything, || status(307),                        UNUSABLE),
    attack("308 to another host",                  Everything, || status(308),                        UNUSABLE),
    attack("600, which is no status",              Everything, || status(600),                        UNUSABLE),
    attack("999, which is no status",              Everything, || status(999),                        UNUSABLE),

    // Acks of unary appends of two records.
    attack("no ack",                               Appends,  || unary_ack(&[]),                       UNUSABLE),
    attack("an ack in JSON",                       Appends,  || typed(200, "application/json"),       UNUSABLE),
    attack("an ack cut short",                     Appends,  || unary_ack(&ack_bytes(1, 3)[..5]),     UNUSABLE),
    attack("an ack of one record",                 Appends,  || unary_ack(&ack_bytes(1, 2)),          UNUSABLE),
    attack("an ack of three records",              Appends,  || unary_ack(&ack_bytes(1, 4)),          UNUSABLE),
    attack("an ack that ends before it starts",    Appends,  || unary_ack(&ack_bytes(5, 3)),          UNUSABLE),
    attack("an ack of 2^64 − 1 records",           Appends,  || unary_ack(&ack_bytes(0, u64::MAX)),   UNUSABLE),
    attack("an ack that breaks off",               Appends,  || broken(&ack_bytes(1, 3)),             UNUSABLE),
    attack("an ack at the end of all numbers",     Appends,  || unary_ack(&ack_bytes(u64::MAX - 2, u64::MAX)), FORGED_ACK),
    attack("an ack of a place already acked",      Appends,  || unary_ack(&ack_bytes(0, 2)),          FORGED_ACK),

    // Acks of sessions with inputs of two records and of one.
    attack("an ack of one record",                 Sessions, || acks(&[(1, 2)]),                      UNUSABLE),
    attack("an ack of three records for both",     Sessions, || acks(&[(1, 4)]),                      UNUSABLE),
    attack("acks in another order",                Sessions, || acks(&[(3, 4), (1, 3)]),              UNUSABLE),
    attack("the first ack again",                  Sessions, || acks(&[(1, 3), (1, 3)]),              UNUSABLE),
    attack("the last ack again",                   Sessions, || acks(&[(1, 3), (3, 4), (3, 4)]),      UNUSABLE),
    attack("an ack that ends before it starts",    Sessions, || acks(&[(5, 3)]),                      UNUSABLE),
    attack("an ack of 2^64 − 1 records",           Sessions, || acks(&[(0, u64::MAX)]),               UNUSABLE),
    attack("an empty ack",                         Sessions, || frames(&[b"\0\0\x01\0"]),             UNUSABLE),
    attack("a frame of nothing",                   Sessions, || frames(&[b"\0\0\0"]),                 BrokenOff),
    attack("an ack in JSON",                       Sessions, || frames(&[b"\0\0\x03\0{}"]),           BrokenOff),
    attack("a frame longer than any",              Sessions, || frames(&[b"\xff\xff\xff\0"]),         BrokenOff),
    attack("half a frame",                         Sessions, || frames(&[&ack(1, 3)[..9]]),           BrokenOff),
    attack("a bomb in gzip",                       Sessions, || bomb("gzip"),                         BrokenOff),
    attack("a bomb in zstd",                       Sessions, || bomb("zstd"),                         BrokenOff),
    attack("a last frame that says success",       Sessions, || terminal(200, "{}"),                  BrokenOff),
    attack("a last frame that redirects",          Sessions, || terminal(302, "{}"),                  BrokenOff),
    attack("a clean end before any ack",           Sessions, || frames(&[]),                          Ends),
    attack("acks at the end of all numbers",       Sessions, || acks(&[(u64::MAX - 3, u64::MAX - 1), (u64::MAX - 1, u64::MAX)]), FORGED_ACK),
    attack("acks of places already acked",         Sessions, || acks(&[(0, 2), (0, 1)]),              FORGED_ACK),

    // Batches, in S2's own frames.
    attack("a plain record",                       Reads,    plain,                                   TAMPERED),
    attack("a record of another stream",           Reads,    other_stream,                            TAMPERED),
    attack("a record in the other cipher",         Reads,    other_cipher,                            TAMPERED),
    attack("a frame of nothing",                   Reads,    || frames(&[b"\0\0\0"]),                 UNUSABLE),
    attack("a frame longer than any",              Reads,    || frames(&[b"\xff\xff\xff\0"]),         UNUSABLE),
    attack("half a frame",                         Reads,    || frames(&[b"\0\0\x09\0"]),             UNUSABLE),
    attack("a frame in an unknown compression",    Reads,    || frames(&[b"\0\0\x02\x60x"]),          UNUSABLE),
    attack("a bomb in gzip",                       Reads,    || bomb("gzip"),                         UNUSABLE),
    attack("a bomb in zstd",                       Reads,    || bomb("zstd"),                         UNUSABLE),
    attack("more records than a frame can hold",   Reads,    many_records,                            UNUSABLE),
    attack("half an answer that breaks off",       Reads,    || broken(b"\0\0\x09\0"),                BrokenOff),
    attack("a last frame that says success",       Reads,    || terminal(200, script::FORGED_JSON),   UNUSABLE),
    attack("a last frame that says a part",        Reads,    || terminal(206, script::FORGED_JSON),   UNUSABLE),
    attack("a last frame that redirects",          Reads,    || terminal(302, script::FORGED_JSON),   UNUSABLE),
    attack("a last frame without a real status",   Reads,    || terminal(0, script::FORGED_JSON),     UNUSABLE),
    attack("a last frame with a status of 600",    Reads,    || terminal(600, script::FORGED_JSON),   UNUSABLE),
    attack("records in another order",             Reads,    reordered,                               REORDERED),
    attack("a record twice",                       Reads,    repeated,                                REORDERED),
    attack("records with other numbers",           Reads,    renumbered,                              REORDERED),
    attack("records of an earlier stream",         Reads,    replayed,                                REPLAYED),
    attack("records at the end of all numbers",    Reads,    huge_numbers,                            REORDERED),
];

const fn attack(name: &'static str, on: On, reply: fn() -> Reply, outcome: Outcome) -> Attack {
    Attack {
        name,
        on,
        reply,
        outcome,
    }
}
