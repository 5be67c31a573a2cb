//! Which rules match which certificates, and which rights come of them.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use rustls_pki_types::CertificateDer;

use super::*;
use crate::certificate::PresentedCertificate;

fn der(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().clone()
}

/// The names in a certificate with this subject.
fn subject(parts: &[(DnType, &str)]) -> CertificateNames {
    let der = der(|params| {
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
    });
    CertificateNames::read(&der).unwrap()
}

/// The names in a certificate with these alternative names.
fn sans(sans: Vec<SanType>) -> CertificateNames {
    CertificateNames::read(&der(|params| params.subject_alt_names = sans)).unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

fn rule(subject: &str, san: &str) -> ClientRule {
    ClientRule {
        subject: subject.to_owned(),
        san: san.to_owned(),
        r#match: vec!["pay-basin/**".to_owned()],
        scopes: [Scope::Append].into_iter().collect(),
    }
}

fn compiled(rules: Vec<ClientRule>) -> Clients {
    Clients::compile(&ClientRules::Rules(rules)).unwrap()
}

fn is_matched(rule: ClientRule, names: &CertificateNames) -> bool {
    compiled(vec![rule]).rights(names).have(Scope::Append)
}

#[test]
fn subject_matches_whole_and_value_by_value() {
    use DnType::{CommonName as CN, OrganizationName as O};
    let billing = subject(&[(O, "Example"), (CN, "billing")]);
    for (text, is_meant) in [
        ("O=Example, CN=billing", true),
        ("O=Example, CN=*", true),
        ("O=*, CN=bill*", true),
        ("O=*, CN=b*l*g", true),
        ("O=Example, CN=b*x*g", false),
        ("CN=billing", false),
        ("CN=billing, O=Example", false),
        ("O=Example", false),
        ("O=*", false),
        ("O=Example+CN=billing", false),
        ("O=Example, CN=billing, CN=*", false),
        ("O=Example, CN=BILLING", false),
    ] {
        assert_eq!(is_matched(rule(text, ""), &billing), is_meant, "{text}");
    }
}

#[test]
fn separator_inside_a_value_is_no_separator() {
    use DnType::{CommonName as CN, CustomDnType};
    let second = || CustomDnType(vec![2, 5, 4, 3]);
    let one_value = subject(&[(CN, "billing, CN=root")]);
    let two_values = subject(&[(CN, "billing"), (second(), "root")]);
    let escapes = subject(&[(CN, r"billing\, CN=root")]);
    for (text, one, two, with_backslash) in [
        ("CN=root", false, false, false),
        ("CN=billing", false, false, false),
        ("CN=billing, CN=root", false, true, false),
        (r"CN=billing\, CN\=root", true, false, false),
        (r"CN=billing\\\, CN\=root", false, false, true),
        ("CN=*", true, false, true),
        ("CN=*, CN=root", false, true, false),
        ("CN=billing*", true, false, true),
    ] {
        let matched = [&one_value, &two_values, &escapes];
        let matched = matched.map(|names| is_matched(rule(text, ""), names));
        assert_eq!(matched, [one, two, with_backslash], "{text}");
    }
}

#[test]
fn subject_rule_never_matches_the_shown_stand_in() {
    let nameless = sans(vec![uri("spiffe://example.org/billing")]);
    assert_eq!(&*nameless.shown, "URI:spiffe://example.org/billing");
    assert_eq!(nameless.subject, None);
    for text in ["CN=*", "URI=*"] {
        assert!(!is_matched(rule(text, ""), &nameless), "{text}");
    }
    let long = "x".repeat(600);
    let cut = subject(&[(DnType::CommonName, &long)]);
    assert!(is_matched(rule(&format!("CN={long}"), ""), &cut));
    assert!(!is_matched(rule(&cut.shown, ""), &cut));
}

#[test]
fn spiffe_wildcard_stays_in_its_segment() {
    let id = |text: &str| sans(vec![uri(text)]);
    let wild = || rule("", "spiffe://example.org/ns/*/sa/billing");
    for (text, is_meant) in [
        ("spiffe://example.org/ns/prod/sa/billing", true),
        ("spiffe://example.org/ns/prod/x/sa/billing", false),
        ("spiffe://example.org/ns/prod/sa/billing/x", false),
        ("spiffe://example.org/ns/prod/sa/billing2", false),
        ("spiffe://example.com/ns/prod/sa/billing", false),
        (
            "spiffe://evil/spiffe://example.org/ns/prod/sa/billing",
            false,
        ),
    ] {
        assert_eq!(is_matched(wild(), &id(text)), is_meant, "{text}");
    }
    let all = rule("", "spiffe://example.org/**");
    assert!(is_matched(
        all.clone(),
        &id("spiffe://example.org/ns/a/sa/b")
    ));
    assert!(!is_matched(all, &id("spiffe://example.org.evil/ns/a")));
}

#[test]
fn second_uri_spoils_a_spiffe_identity() {
    let billing = "spiffe://example.org/billing";
    let names = sans(vec![uri(billing), uri("spiffe://example.org/root")]);
    assert!(!is_matched(rule("", billing), &names));
    assert!(!is_matched(rule("", "spiffe://example.org/*"), &names));
    let plain = sans(vec![uri("urn:x:billing"), uri("urn:x:other")]);
    assert!(is_matched(rule("", "urn:x:billing"), &plain));
}

#[test]
fn kinds_of_alternative_names_stay_apart() {
    let billing = "spiffe://example.org/billing";
    let email = |text: &str| SanType::Rfc822Name(text.try_into().unwrap());
    let address = |text: &str| SanType::IpAddress(text.parse().unwrap());
    for (text, san, is_meant) in [
        (billing, dns(billing), false),
        (billing, email(billing), false),
        ("billing.example.org", uri("billing.example.org"), false),
        ("billing.example.org", email("billing.example.org"), false),
        ("billing.example.org", dns("Billing.Example.ORG"), true),
        ("BILLING.example.org", dns("billing.example.org"), true),
        ("billing.example.org", dns("*.example.org"), false),
        ("*.example.org", dns("a.example.org"), true),
        ("*.example.org", dns("a.b.example.org"), false),
        ("*.example.org", dns("example.org"), false),
        ("a@example.org", email("a@example.org"), true),
        ("a@example.org", email("b@example.org"), false),
        ("192.0.2.7", address("192.0.2.7"), true),
        ("192.0.2.7", dns("192.0.2.7"), false),
        ("2001:db8::1", address("2001:db8:0::1"), true),
    ] {
        let names = sans(vec![san.clone()]);
        assert_eq!(
            is_matched(rule("", text), &names),
            is_meant,
            "{text} {san:?}"
        );
    }
}

#[test]
fn rights_add_up_and_each_scope_keeps_its_globs() {
    let with = |glob: &str, scope| ClientRule {
        r#match: vec![glob.to_owned()],
        scopes: [scope].into_iter().collect(),
        ..rule("", "a.example.org")
    };
    let other = ClientRule {
        scopes: Scopes::all(),
        ..rule("", "b.example.org")
    };
    let clients = compiled(vec![
        with("one-basin/**", Scope::Append),
        with("two-basin/a/*", Scope::Read),
        other,
    ]);
    let rights = clients.rights(&sans(vec![dns("a.example.org")]));
    let path = |basin: &str, stream: &str| StreamPath {
        basin: basin.parse().unwrap(),
        stream: stream.parse().unwrap(),
    };
    assert!(rights.allow(Scope::Append, &path("one-basin", "s")));
    assert!(!rights.allow(Scope::Read, &path("one-basin", "s")));
    assert!(rights.allow(Scope::Read, &path("two-basin", "a/s")));
    assert!(!rights.allow(Scope::Append, &path("two-basin", "a/s")));
    assert!(!rights.allow(Scope::Read, &path("two-basin", "s")));
    assert!(!rights.allow(Scope::Append, &path("pay-basin", "s")));
    assert!(!rights.have(Scope::Manage));
    let (one, two) = ("one-basin".parse().unwrap(), "two-basin".parse().unwrap());
    assert!(rights.cover(Scope::Append, &one) && !rights.cover(Scope::Read, &one));
    assert!(rights.reach(Scope::Read, &two) && !rights.cover(Scope::Read, &two));
    let nobody = clients.rights(&sans(vec![dns("c.example.org")]));
    assert!(Scope::ALL.into_iter().all(|scope| !nobody.have(scope)));
}

#[test]
fn every_mistake_in_the_rules_is_reported() {
    let with = |change: fn(&mut ClientRule)| {
        let mut rule = rule("CN=a", "");
        change(&mut rule);
        rule
    };
    let rules = vec![
        rule("", ""),
        rule("CN=a", "a.example.org"),
        rule("billing", ""),
        rule("CN=**", ""),
        rule("", "10.0.0.*"),
        rule("", "spiffe://[^a]/x"),
        rule("", "*@example.org"),
        with(|rule| rule.r#match = vec![]),
        with(|rule| rule.r#match = vec!["secret-*".to_owned(), "[".to_owned()]),
        with(|rule| rule.scopes = Scopes::default()),
    ];
    let mistakes = Clients::compile(&ClientRules::Rules(rules)).unwrap_err();
    let mistakes = mistakes.join("\n");
    for part in [
        "clients[0].subject: needs a subject or a san",
        "clients[1].san: does not go together with subject",
        "clients[2].subject: is not a subject",
        "clients[3].subject: `**`",
        "clients[4].san: is not a URI",
        "clients[5].san: `[^a]` takes `/`",
        "clients[6].san: an e-mail address takes no `*`",
        "clients[7].match: needs at least one glob",
        "clients[8].match: `secret-*` matches no stream, for globs are over `basin/stream`: write `secret-*/**`",
        "clients[8].match: error parsing glob '['",
        "clients[9].scopes: needs at least one",
    ] {
        assert!(mistakes.contains(part), "{part} not in\n{mistakes}");
    }
    let many = vec![rule("CN=a", ""); MAX_CLIENTS + 1];
    let mistakes = Clients::compile(&ClientRules::Rules(many)).unwrap_err();
    assert_eq!(mistakes, ["clients: more than 1000"]);
}

#[test]
fn unreadable_certificate_is_none() {
    let trust = Arc::default();
    let nonsense = CertificateDer::from(&b"\x30\x03\x02\x01\x01"[..]);
    assert!(PresentedCertificate::new(&[nonsense], None, trust).is_none());
}
