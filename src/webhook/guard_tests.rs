//! The guard's table: every notation of every address that must not be reached.

use super::*;

fn config(allow: &[&str]) -> Webhooks {
    let allow_cidrs = allow.iter().map(|text| (*text).to_owned()).collect();
    Webhooks { allow_http: true, allow_cidrs, ..Webhooks::default() }
}

#[test]
fn forbidden_literals_are_refused_in_any_notation() {
    for host in [
        "127.0.0.1",
        "127.1",
        "[::1]",
        "0.0.0.0",
        "0",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "169.254.169.254",
        "localhost",
        "localhost.",
        "LOCALHOST",
        "a.localhost",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::ffff:10.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::10.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::1]",
        "[2002:7f00:1::]",
        "[2001::1]",
        "[2001:db8::1]",
        "[fc00::1]",
        "[fdff::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
        "１２７.0.0.1",
        "①②⑦.0.0.1",
        "%31%32%37.0.0.1",
    ] {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{host}:8443/hooks");
            assert_eq!(check_url(&url, &config(&[])), Err(UrlRefused::Address), "{url}");
        }
    }
}

#[test]
fn public_addresses_and_names_are_taken() {
    for url in [
        "https://example.com/hooks/calls",
        "https://example.com",
        "https://8.8.8.8/",
        "https://172.32.0.1/",
        "https://[2606:4700::1111]/",
        "https://[64:ff9b::8.8.8.8]/",
        "https://[::ffff:8.8.8.8]/",
        "https://localhost.example.com/",
        "https://example.com:8443/a?b=c",
    ] {
        assert!(check_url(url, &config(&[])).is_ok(), "{url}");
    }
}

#[test]
fn form_is_checked() {
    let open = config(&[]);
    for (url, refused) in [
        ("", UrlRefused::Malformed),
        ("not a url", UrlRefused::Malformed),
        ("example.com/hooks", UrlRefused::Malformed),
        ("https://", UrlRefused::Malformed),
        ("https://exa\tmple.com/", UrlRefused::Malformed),
        ("https://example.com/\r\nX: y", UrlRefused::Malformed),
        (" https://example.com/", UrlRefused::Malformed),
        ("ftp://example.com/", UrlRefused::Scheme),
        ("file:///etc/passwd", UrlRefused::Scheme),
        ("javascript:alert(1)", UrlRefused::Scheme),
        ("https://u:p@h/", UrlRefused::UserInfo),
        ("https://user@example.com/", UrlRefused::UserInfo),
        ("https://example.com/#top", UrlRefused::Fragment),
        ("https://example.com/#", UrlRefused::Fragment),
        ("https://example.com:0/", UrlRefused::Port),
        ("https://example.com:70000/", UrlRefused::Malformed),
    ] {
        assert_eq!(check_url(url, &open), Err(refused), "{url:?}");
    }
    let long = format!("https://example.com/{}", "a".repeat(2048));
    assert_eq!(check_url(&long, &open), Err(UrlRefused::TooLong));
    assert_eq!(check_url("http://example.com/", &Webhooks::default()), Err(UrlRefused::Scheme));
}

#[test]
fn exceptions_open_exactly_what_they_name() {
    let loopback = config(&["127.0.0.1/32"]);
    assert!(check_url("http://127.0.0.1:5000/webhook", &loopback).is_ok());
    assert!(check_url("http://localhost:5000/webhook", &loopback).is_ok());
    assert!(check_url("http://[::ffff:127.0.0.1]/", &loopback).is_ok());
    assert_eq!(check_url("http://127.0.0.2/", &loopback), Err(UrlRefused::Address));
    assert_eq!(check_url("http://[::1]/", &loopback), Err(UrlRefused::Address));
    assert_eq!(check_url("http://10.0.0.1/", &loopback), Err(UrlRefused::Address));
    assert!(check_url("http://[fd00::7]/", &config(&["fd00::/8"])).is_ok());
}

#[test]
fn networks_are_read_strictly() {
    for (text, good) in [
        ("10.0.0.0/8", true),
        ("10.0.0.1", true),
        ("::/0", true),
        ("0.0.0.0/0", true),
        ("10.0.0.0/33", false),
        ("10.0.0.0/-1", false),
        ("fd00::/129", false),
        ("ten/8", false),
        ("", false),
    ] {
        assert_eq!(text.parse::<Cidr>().is_ok(), good, "{text:?}");
    }
    let all: Cidr = "0.0.0.0/0".parse().unwrap();
    assert!(all.contains("255.1.2.3".parse().unwrap()));
    assert!(all.contains("::ffff:1.2.3.4".parse().unwrap()));
    assert!(!all.contains("::1".parse().unwrap()));
}
