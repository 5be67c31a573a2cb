//! Exit codes and messages of the command line.

use super::*;

fn outcome(arguments: &[&str]) -> Result<(), Failure> {
    let arguments = std::iter::once(&"streamseal").chain(arguments);
    run_with(arguments.map(OsString::from))
}

#[test]
fn definition_is_consistent() {
    use clap::CommandFactory as _;
    Args::command().debug_assert();
}

#[test]
fn help_and_version_are_no_failures() {
    for asked in ["--help", "--version"] {
        assert_eq!(outcome(&[asked]), Ok(()));
    }
}

#[test]
fn bad_usage_exits_64_and_says_what() {
    for (arguments, mentioned) in [
        (&[][..], "serve"),
        (&["sreve"], "sreve"),
        (&["serve", "--conifg", "x"], "--conifg"),
        (
            &["check-config", "--config", "/nowhere/a.toml"],
            "/nowhere/a.toml",
        ),
    ] {
        let failure = outcome(arguments).unwrap_err();
        assert_eq!(failure.exit_code(), 64);
        assert!(failure.to_string().contains(mentioned), "{failure}");
    }
}

#[test]
fn check_config_reports_every_mistake() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "[listen]\nplaintext = true\naddress = \"0.0.0.0:1\"\n[limits]\nmax_connections = 0\n",
    )
    .unwrap();
    let path = file.path().to_str().unwrap();
    let failure = outcome(&["check-config", "--config", path]).unwrap_err();
    assert_eq!(failure.exit_code(), 64);
    for key in ["listen.plaintext", "limits.max_connections"] {
        assert!(failure.to_string().contains(key), "{failure}");
    }
}
