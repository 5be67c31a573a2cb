//! Every line of the threat model is run by a test or said in the README: this is the list.

use super::answers::named;

/// The sources of the tests that are named below.
const SOURCES: &[(&str, &str)] = &[
    ("admin", include_str!("../admin.rs")),
    ("ceiling", include_str!("../ceiling.rs")),
    ("ceiling_races", include_str!("../ceiling_races.rs")),
    ("clients::lasting", include_str!("../clients/lasting.rs")),
    ("clients::revoked", include_str!("../clients/revoked.rs")),
    ("clients::rights", include_str!("../clients/rights.rs")),
    ("flow", include_str!("../flow.rs")),
    ("gate", include_str!("../gate.rs")),
    ("gate_sessions", include_str!("../gate_sessions.rs")),
    ("gate_tenants", include_str!("../gate_tenants.rs")),
    ("hostile::answers", include_str!("answers.rs")),
    ("hostile::clients", include_str!("clients.rs")),
    ("hostile::endless", include_str!("endless.rs")),
    ("hostile::existence", include_str!("existence.rs")),
    ("hostile::floods", include_str!("floods.rs")),
    ("hostile::leads", include_str!("leads.rs")),
    ("hostile::slow", include_str!("slow.rs")),
    ("hostile::wire", include_str!("wire.rs")),
    ("input", include_str!("../input.rs")),
    ("input_routes", include_str!("../input_routes.rs")),
    ("key_sources", include_str!("../key_sources.rs")),
    ("keys", include_str!("../keys.rs")),
    ("logs", include_str!("../logs.rs")),
    ("managed::access", include_str!("../managed/access.rs")),
    ("managed::oracle", include_str!("../managed/oracle.rs")),
    ("managed::shred", include_str!("../managed/shred.rs")),
    ("managed::switches", include_str!("../managed/switches.rs")),
    ("managed::tampered", include_str!("../managed/tampered.rs")),
    ("memory", include_str!("../memory.rs")),
    ("projects", include_str!("../projects.rs")),
    ("projects_commands", include_str!("../projects_commands.rs")),
    ("projects_memory", include_str!("../projects_memory.rs")),
    ("registry", include_str!("../registry.rs")),
    ("registry_faults", include_str!("../registry_faults.rs")),
    ("registry_intents", include_str!("../registry_intents.rs")),
    ("routes", include_str!("../routes.rs")),
    ("routes_answers", include_str!("../routes_answers.rs")),
    ("routes_own_token", include_str!("../routes_own_token.rs")),
    ("routes_unknown", include_str!("../routes_unknown.rs")),
    ("secrecy", include_str!("../secrecy.rs")),
    ("still_plain", include_str!("../still_plain.rs")),
    ("store_faults", include_str!("../store_faults.rs")),
    ("tamper", include_str!("../tamper.rs")),
];

/// A line of the threat model, the tests that run it, and what the README says of it.
struct Line {
    who_does_what: &'static str,
    tests: &'static [&'static str],
    readme: &'static [&'static str],
}

#[rustfmt::skip]
const LINES: &[Line] = &[
    // The upstream, or who controls it …
    line("flips, truncates or extends a sealed record",
        &["tamper::a_spoiled_record_fails_every_read", "tamper::a_session_delivers_what_precedes_the_bad_record_only"],
        &["A stored record that was altered, cut, extended, or moved from another stream or basin is refused"]),
    line("moves a record to another stream or basin",
        &["tamper::a_spoiled_record_fails_every_read", "hostile::answers::every_lie_about_reads_has_its_outcome"],
        &["moved from another stream or basin is refused"]),
    line("serves a plain record, headers on a record, another cipher's or an unknown format id on a sealed stream",
        &["tamper::a_spoiled_record_fails_every_read", "tamper::a_forged_batch_is_refused", "hostile::answers::every_lie_about_reads_has_its_outcome"],
        &["So is a plain record on an encrypted stream, and a record in another or an unknown format"]),
    line("says that a new stream exists, or lies about `created_at`, to get plaintext",
        &["hostile::existence::no_list_makes_a_stream_plain", "hostile::existence::a_plain_stream_takes_no_key_whatever_the_list_says",
          "registry_faults::a_first_cipher_asks_for_no_list_and_believes_none",
          "registry::a_sealed_stream_made_again_behind_the_proxy_stays_sealed", "still_plain::a_session_breaks_off_before_the_next_frame"],
        &["Nothing that the upstream says turns a stream of a basin with a cipher into a plain one"]),
    line("answers a create with 409, 500, garbage, or not at all",
        &["registry_intents::a_creation_on_demand_that_goes_wrong_ends_sealed", "registry_intents::a_creation_by_call_that_goes_wrong_ends_sealed",
          "hostile::existence::lies_about_creations_and_deletions_make_nothing_plain"],
        &[]),
    line("reorders, repeats or drops records inside one stream; renumbers them; rolls the tail back",
        &["hostile::answers::every_lie_about_reads_has_its_outcome"],
        &["the upstream can reorder, repeat or drop records, renumber them, and roll the tail back"]),
    line("replays records of a deleted stream into a new one of the same name and key",
        &["hostile::answers::every_lie_about_reads_has_its_outcome"],
        &["Records of a deleted stream can be replayed into a new one with the same name and the same key"]),
    line("forges command records (fence, trim), timestamps, tails, acks",
        &["hostile::answers::every_lie_about_appends_has_its_outcome", "hostile::answers::every_lie_about_sessions_has_its_outcome"],
        &["Command records (fence, trim), timestamps, tails and acknowledgements are not authenticated",
          "goes by the sequence numbers that the upstream tells"]),
    line("acks without storing",
        &["hostile::answers::every_lie_about_appends_has_its_outcome"],
        &["The upstream can acknowledge an append and not store it"]),
    line("learns names, record counts, sizes, times, fencing tokens, match_seq_num, access tokens that pass through",
        &["secrecy::upstream_never_sees_plaintext", "secrecy::key_reaches_the_upstream_on_no_route"],
        &["The upstream learns the names of basins and streams, how many records there are, their sizes (but for a constant) and times, fencing tokens, `match_seq_num`, and the access tokens that pass through"]),
    line("answers without end, 100 MB headers, bombs, wrong types, redirects, slow drips",
        &["hostile::endless::answers_about_records_end_at_a_limit", "hostile::endless::answers_about_basins_and_streams_end_at_a_limit",
          "hostile::endless::a_unary_read_takes_what_one_answer_holds", "hostile::endless::what_is_passed_through_waits_for_the_client",
          "hostile::wire::broken_http_is_an_error_in_time_and_floods_are_not_read", "hostile::answers::every_lie_about_reads_has_its_outcome",
          "hostile::leads::redirects_are_refused_on_every_way", "hostile::slow::who_drips_is_given_up_on_and_nobody_else_waits"],
        &["sessions, and calls that are passed through, last as long as both sides keep them"]),
    line("answers with a page or a script, to run under the proxy's name",
        &["routes_answers::pages_and_scripts_never_pass", "routes_answers::no_answer_lets_a_browser_guess_its_type"],
        &["Any other, a page or a script above all, would run in a browser under the proxy's name"]),

    // A client …
    line("makes a call that S2 does not have, with records in it",
        &["routes::unknown_paths_go_nowhere", "routes::calls_without_a_body_take_none_along",
          "routes_unknown::bodies_that_could_be_secret_records_stay", "routes_unknown::lookalikes_and_trace_stay_in_any_case"],
        &["A path that is not in it is answered 404"]),
    line("wants the proxy's own token, or one made with it",
        &["routes::trace_is_refused_and_echoes_no_token", "routes_own_token::open_gateway_hands_out_no_access_tokens",
          "routes_own_token::certificate_alone_gets_no_access_token", "routes_own_token::api_key_gets_no_access_token"],
        &["`TRACE` and `CONNECT` are refused on every path"]),
    line("sends a key that is not the stream's",
        &["keys::a_key_that_is_not_the_streams_is_refused_before_anything_is_sent"],
        &["Another key is then refused before anything is written"]),
    line("sends no key, half a key, 45 characters, two headers, a key in the query string",
        &["keys::unusable_keys_are_refused_by_name_and_never_repeated", "keys::two_key_headers_are_one_too_many",
          "key_sources::a_key_in_the_query_is_refused_everywhere", "logs::nothing_secret_is_in_the_loudest_log_of_the_program"],
        &["A key in a query string is refused"]),
    line("sends bombs, endless bodies, slow headers, thousands of streams",
        &["input::bodies_over_two_mebibytes_are_refused_however_small_they_travel", "hostile::clients::bombs_in_frames_are_refused",
          "hostile::clients::endless_bodies_are_left_at_the_limit", "hostile::clients::slow_heads_are_cut_off",
          "hostile::floods::a_flood_of_headers_is_refused", "hostile::floods::more_streams_than_allowed_are_refused_one_by_one",
          "hostile::floods::streams_opened_and_reset_at_once_end_the_connection",
          "hostile::clients::a_hundred_connections_of_idle_requests_hold_nobody_up"],
        &[]),
    line("reads faster or slower than the upstream",
        &["flow::a_slow_reader_slows_the_upstream_down", "flow::a_slow_upstream_slows_the_client_down"],
        &[]),
    line("reaches an admin route from the data listener, or record data from the admin one",
        &["hostile::clients::no_path_leads_to_anything_of_the_proxys_own",
          "admin::no_path_of_the_admin_listener_leads_to_records",
          "admin::no_path_of_the_data_listener_leads_to_the_admin_api"],
        &["No path of it leads to a record, and no path of the data listener leads to it"]),
    line("smuggles: `Content-Length` with `Transfer-Encoding`, bare CR, absolute URIs, encoded slashes and dots, duplicate `s2-basin`",
        &["input_routes::malformed_requests_are_refused_and_go_nowhere", "input_routes::two_lengths_make_one_request",
          "input_routes::lookalikes_of_routes_are_not_found_and_go_nowhere", "input_routes::absolute_targets_and_second_basins_change_nothing"],
        &[]),

    // Someone with …
    line("the upstream's disks or backups", &["secrecy::upstream_never_sees_plaintext"],
        &["Whoever can read the upstream's disks or backups learns ciphertext, sizes, names and times"]),
    line("the config store (read)", &["managed::oracle::stored_records_open_by_the_published_derivations"],
        &["Whoever can read the config store learns which streams are encrypted, and the key checks, from which a random key cannot be found",
          "wrapped data keys, which open only with an API key or the KMS"]),
    line("the config store (write)",
        &["store_faults::with_a_key_an_edited_store_starts_no_proxy"],
        &["Whoever can **write** it gets no key, but without `store.key_file` can declare streams plain"]),
    line("the logs, metrics, traces, a core dump, swap",
        &["logs::nothing_secret_is_in_the_code_s_own_events", "logs::nothing_secret_is_in_the_loudest_log_of_the_program",
          "memory::appends_leave_nothing", "memory::reads_leave_nothing", "memory::wrong_keys_leave_nothing",
          "memory::append_sessions_leave_nothing", "memory::read_sessions_leave_nothing"],
        &["It leaves no core dump", "Memory is overwritten with zeros when it is freed", "keeps all of its memory out of swap"]),
    line("the running proxy as root", &[],
        &["Whoever is root on the proxy's host while it runs sees everything that passes"]),

    // With a certificate, a client …
    line("wants streams, basins or access tokens that no table of `[[clients]]` gives it",
        &["clients::rights::append_only_client_may_append_and_nothing_else", "clients::rights::certificate_without_a_rule_has_no_right",
          "clients::rights::lists_show_what_the_client_may_read_and_no_more", "clients::rights::basin_takes_a_glob_that_covers_all_of_it",
          "clients::rights::spiffe_id_and_rules_that_add_up_hold_end_to_end"],
        &["Access tokens, account-wide calls and unknown paths are refused", "A certificate that no table matches may do nothing"]),
    line("goes on after its right was taken away, or its certificate revoked",
        &["clients::lasting::reload_that_takes_a_right_ends_sessions_and_no_others", "clients::lasting::read_that_waits_ends_with_its_right",
          "clients::lasting::append_whose_right_ends_before_its_body_is_not_stored",
          "clients::revoked::reload_with_a_list_ends_what_a_revoked_client_has_open",
          "clients::revoked::resumed_session_of_an_expired_certificate_has_no_rights"],
        &["requests are refused at once and sessions end within five seconds"]),
    // With API keys and managed keys, a client …
    line("sends an API key that is altered, unknown, revoked, expired, or one where it does not belong",
        &["gate::every_failure_is_one_and_the_same_answer", "gate::every_flipped_bit_is_refused",
          "gate::an_api_key_where_it_does_not_belong_is_refused_with_a_good_one_too",
          "gate_sessions::revocation_ends_every_open_session_and_no_other", "projects::another_pepper_makes_every_key_unknown"],
        &["is answered by one and the same 401 `authn`"]),
    line("tries another project's streams, or what its scopes do not name",
        &["gate_tenants::every_call_about_anothers_stream_is_one_refusal_whether_or_not_it_is_there",
          "gate_tenants::no_spelling_of_basin_or_stream_opens_anothers", "gate_tenants::a_body_names_one_stream_or_is_refused",
          "gate_tenants::lists_show_ones_own_as_if_there_were_nothing_else", "gate_tenants::each_scope_allows_its_own_and_nothing_else",
          "managed::switches::a_stream_stays_with_the_project_that_holds_its_keys"],
        &["in the same words whether or not the stream is there"]),
    line("has an API key whose master key is not the project's",
        &["managed::access::an_api_key_without_the_master_key_may_neither_append_nor_read"],
        &["is refused for appends **and** reads with 403"]),
    // … or someone …
    line("looks for API keys upstream, in logs, or in memory",
        &["gate::the_projects_own_token_goes_upstream_and_no_other", "gate::no_part_of_an_api_key_is_told_to_anybody",
          "projects_commands::no_key_is_in_the_loudest_log", "projects_memory::api_keys_leave_nothing"],
        &["no request with an API key in it leaves the process"]),
    line("moves wrapped keys in a store without a key of its own, or alters records' key epochs",
        &["managed::tampered::a_wrapped_key_of_another_place_is_refused", "managed::tampered::a_flipped_bit_in_any_byte_of_a_record_is_refused",
          "managed::tampered::records_of_another_stream_epoch_or_kind_are_refused"],
        &[]),
    line("wants what was shredded",
        &["managed::shred::a_shredded_stream_is_gone_for_ever", "managed::shred::old_epochs_are_shredded_and_the_stream_goes_on"],
        &["A backup keeps shredded keys alive for as long as it exists"]),

    // And what the format itself demands.
    line("AES-256-GCM: no data record beyond sequence number 2^32 − 1",
        &["ceiling::the_last_number_is_taken_and_none_after_it", "ceiling_races::clients_at_once_do_not_overshoot_together"],
        &["`aes-256-gcm` (at most 2³² records in a stream, unless its keys are [managed]"]),
];

const fn line(
    who_does_what: &'static str,
    tests: &'static [&'static str],
    readme: &'static [&'static str],
) -> Line {
    Line {
        who_does_what,
        tests,
        readme,
    }
}

#[test]
fn every_line_is_run_or_said() {
    for line in LINES {
        let what = line.who_does_what;
        assert!(line.tests.len() + line.readme.len() > 0, "{what}");
        line.readme.iter().for_each(|words| named(words));
        for test in line.tests {
            let (module, function) = test.rsplit_once("::").unwrap();
            let source = SOURCES.iter().find(|(name, _)| *name == module);
            let (_, source) = source.unwrap_or_else(|| panic!("{what}: no module {module}"));
            let head = format!("]\nasync fn {function}() {{");
            assert!(source.contains(&head), "{what}: no test {test}");
        }
    }
}
