//! Whether the certificates in use can be used, and for how long.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::IntGaugeVec;

use crate::certificate::{Certificate, Role};

const SECONDS_A_DAY: i64 = 86_400;

const ROLES: [Role; 5] = [
    Role::Listener,
    Role::ClientCa,
    Role::ClientCrl,
    Role::UpstreamCa,
    Role::UpstreamClient,
];

/// Whole days until a certificate ends; below zero once it has.
pub(super) fn days_left(certificate: &Certificate, now: SystemTime) -> i64 {
    let now = match now.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(_) => 0,
    };
    let left = certificate.not_after.saturating_sub(now);
    left.div_euclid(SECONDS_A_DAY)
}

/// Whether the proxy's own certificates are valid, and until when.
///
/// # Errors
/// What is wrong.
pub(super) fn check(certificates: &[Certificate], now: SystemTime) -> Result<String, String> {
    let problems: Vec<_> = own(certificates)
        .filter(|one| !one.is_valid_at(now))
        .map(|one| {
            let what = match days_left(one, now) {
                days if days < 0 => "has expired",
                _ => "is not valid yet",
            };
            format!(
                "the {} certificate ({}) {what}",
                one.role.name(),
                one.subject
            )
        })
        .collect();
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    Ok(
        match own(certificates).map(|one| days_left(one, now)).min() {
            Some(days) => format!("valid for {days} days"),
            None => "none in use".to_owned(),
        },
    )
}

/// Lets the metrics know when the first certificate of each kind ends.
pub(super) fn measure(certificates: &[Certificate], gauges: &IntGaugeVec) {
    for role in ROLES {
        let of_role = certificates.iter().filter(|one| one.role == role);
        match of_role.map(|one| one.not_after).min() {
            Some(end) => gauges.with_label_values(&[role.name()]).set(end),
            // An error says that there was none.
            None => drop(gauges.remove_label_values(&[role.name()])),
        }
    }
}

/// The certificates that prove who the proxy is: the first of each chain. What follows it may be there for
/// clients of long ago, and of authorities there may be several, old and new.
fn own(certificates: &[Certificate]) -> impl Iterator<Item = &Certificate> {
    [Role::Listener, Role::UpstreamClient]
        .into_iter()
        .filter_map(|role| certificates.iter().find(|one| one.role == role))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BEGIN: i64 = 1_800_000_000;

    fn certificate(role: Role, days: i64) -> Certificate {
        Certificate {
            role,
            subject: "CN=streams".into(),
            not_before: BEGIN,
            not_after: BEGIN + days * SECONDS_A_DAY,
        }
    }

    fn after(days: f64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_secs_f64(days * 86_400.0)
    }

    #[test]
    fn days_are_counted_to_the_end_and_beyond() {
        let certificate = certificate(Role::Listener, 10);
        for (now, days) in [
            (0.0, 10),
            (9.0, 1),
            (9.5, 0),
            (10.0, 0),
            (10.5, -1),
            (11.5, -2),
        ] {
            assert_eq!(days_left(&certificate, after(now)), days, "{now}");
        }
    }

    #[test]
    fn a_certificate_that_is_needed_must_be_valid() {
        let old = [
            certificate(Role::ClientCa, 1),
            certificate(Role::UpstreamCa, 1),
        ];
        assert_eq!(check(&old, after(5.0)).unwrap(), "none in use");
        // The chain's second is not what clients look at first.
        let chain = [
            certificate(Role::Listener, 10),
            certificate(Role::Listener, 1),
        ];
        let chain: Vec<_> = old.into_iter().chain(chain).collect();
        assert_eq!(check(&chain, after(5.0)).unwrap(), "valid for 5 days");
        let expired = check(&chain, after(10.5)).unwrap_err();
        assert_eq!(expired, "the listener certificate (CN=streams) has expired");
        let early = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert!(check(&chain, early).unwrap_err().contains("not valid yet"));
        let client = [certificate(Role::UpstreamClient, 1)];
        assert!(
            check(&client, after(1.5))
                .unwrap_err()
                .contains("upstream_client")
        );
    }

    #[test]
    fn metrics_have_the_first_end_of_each_kind() {
        let metrics = crate::telemetry::metrics::Metrics::new().unwrap();
        let gauges = &metrics.process.certificate_expiry;
        measure(&[certificate(Role::ClientCa, 1)], gauges);
        measure(
            &[
                certificate(Role::Listener, 3),
                certificate(Role::Listener, 2),
            ],
            gauges,
        );
        let text = metrics.render();
        let line = "certificate_expiry_timestamp_seconds{certificate=\"listener\"} 1800172800";
        assert!(text.contains(line), "{text}");
        assert!(!text.contains("client_ca"), "{text}");
    }
}
