//! The promises of streamseal, each against a real `s2-lite` and over real TLS; a module per promise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "that is how a test fails"
)]
#![allow(missing_docs, reason = "tests are read, not linked to")]

#[path = "proxy/admin.rs"]
mod admin;
#[path = "proxy/admin_api.rs"]
mod admin_api;
#[path = "proxy/answers.rs"]
mod answers;
#[path = "proxy/audit.rs"]
mod audit;
#[path = "proxy/ceiling.rs"]
mod ceiling;
#[path = "proxy/ceiling_races.rs"]
mod ceiling_races;
#[path = "proxy/clients/mod.rs"]
mod clients;
#[path = "proxy/control.rs"]
mod control;
#[path = "proxy/control_bodies.rs"]
mod control_bodies;
#[path = "proxy/control_streams.rs"]
mod control_streams;
#[path = "proxy/crash/mod.rs"]
mod crash;
#[path = "proxy/decides/mod.rs"]
mod decides;
#[path = "proxy/deploy/mod.rs"]
mod deploy;
#[path = "proxy/differential/mod.rs"]
mod differential;
#[path = "proxy/drain.rs"]
mod drain;
#[path = "proxy/encodings.rs"]
mod encodings;
#[path = "proxy/ends/mod.rs"]
mod ends;
#[path = "proxy/flow.rs"]
mod flow;
#[path = "proxy/fuzz.rs"]
mod fuzz;
#[path = "proxy/gate.rs"]
mod gate;
#[path = "proxy/gate_lasting.rs"]
mod gate_lasting;
#[path = "proxy/gate_sessions.rs"]
mod gate_sessions;
#[path = "proxy/gate_tenants.rs"]
mod gate_tenants;
#[path = "proxy/harness/mod.rs"]
mod harness;
#[path = "proxy/host.rs"]
mod host;
#[path = "proxy/hostile/mod.rs"]
mod hostile;
#[path = "proxy/input.rs"]
mod input;
#[path = "proxy/input_routes.rs"]
mod input_routes;
#[path = "proxy/key_sources.rs"]
mod key_sources;
#[path = "proxy/keys.rs"]
mod keys;
#[path = "proxy/kms/mod.rs"]
mod kms;
#[path = "proxy/leaving.rs"]
mod leaving;
#[path = "proxy/limits.rs"]
mod limits;
#[path = "proxy/listener.rs"]
mod listener;
#[path = "proxy/log_lines.rs"]
mod log_lines;
#[path = "proxy/logs.rs"]
mod logs;
#[path = "proxy/managed/mod.rs"]
mod managed;
#[path = "proxy/memory.rs"]
mod memory;
#[path = "proxy/metrics.rs"]
mod metrics;
#[path = "proxy/metrics_failures.rs"]
mod metrics_failures;
#[path = "proxy/metrics_names.rs"]
mod metrics_names;
#[path = "proxy/migrate/mod.rs"]
mod migrate;
#[path = "proxy/native.rs"]
mod native;
#[path = "proxy/native_reads.rs"]
mod native_reads;
#[path = "proxy/overload.rs"]
mod overload;
#[path = "proxy/oversize.rs"]
mod oversize;
#[path = "proxy/oversize_edges.rs"]
mod oversize_edges;
#[path = "proxy/oversize_failures.rs"]
mod oversize_failures;
#[path = "proxy/oversize_stored.rs"]
mod oversize_stored;
#[path = "proxy/projects.rs"]
mod projects;
#[path = "proxy/projects_commands.rs"]
mod projects_commands;
#[path = "proxy/projects_crash.rs"]
mod projects_crash;
#[path = "proxy/projects_memory.rs"]
mod projects_memory;
#[path = "proxy/registry.rs"]
mod registry;
#[path = "proxy/registry_behind.rs"]
mod registry_behind;
#[path = "proxy/registry_collisions.rs"]
mod registry_collisions;
#[path = "proxy/registry_create.rs"]
mod registry_create;
#[path = "proxy/registry_data_keys.rs"]
mod registry_data_keys;
#[path = "proxy/registry_faults.rs"]
mod registry_faults;
#[path = "proxy/registry_guards.rs"]
mod registry_guards;
#[path = "proxy/registry_intents.rs"]
mod registry_intents;
#[path = "proxy/registry_races.rs"]
mod registry_races;
#[path = "proxy/registry_rules.rs"]
mod registry_rules;
#[path = "proxy/reload_less.rs"]
mod reload_less;
#[path = "proxy/reload_mtls.rs"]
mod reload_mtls;
#[path = "proxy/reload_program.rs"]
mod reload_program;
#[path = "proxy/reload_rules.rs"]
mod reload_rules;
#[path = "proxy/reload_running.rs"]
mod reload_running;
#[path = "proxy/reload_upstream.rs"]
mod reload_upstream;
#[path = "proxy/reload_whole.rs"]
mod reload_whole;
#[path = "proxy/request_ids.rs"]
mod request_ids;
#[path = "proxy/routes.rs"]
mod routes;
#[path = "proxy/routes_answers.rs"]
mod routes_answers;
#[path = "proxy/routes_own_token.rs"]
mod routes_own_token;
#[path = "proxy/routes_unknown.rs"]
mod routes_unknown;
#[path = "proxy/sdk.rs"]
mod sdk;
#[path = "proxy/secrecy.rs"]
mod secrecy;
#[path = "proxy/sessions.rs"]
mod sessions;
#[path = "proxy/smoke.rs"]
mod smoke;
#[path = "proxy/still_plain.rs"]
mod still_plain;
#[path = "proxy/store_commands.rs"]
mod store_commands;
#[path = "proxy/store_faults.rs"]
mod store_faults;
#[path = "proxy/store_managed.rs"]
mod store_managed;
#[path = "proxy/systemd.rs"]
mod systemd;
#[path = "proxy/tamper.rs"]
mod tamper;
#[path = "proxy/traces.rs"]
mod traces;
