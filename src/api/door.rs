//! Who may use a surface without a key (CONTRACT 1.4, 1.5, 2.1 C4): programs on this machine and peers of the networks
//! that the operator names, as long as no browser sends the request in somebody else's name. Whoever passes
//! [`Door::before`] acts as the `local` key; whoever shows a key is the gate's to judge. Decides by the peer and the
//! headers alone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;

use super::App;
use super::fault::Fault;
use super::gate::{self, StandIn};
use crate::control::Refusal;
use crate::control::admission::LOCAL_KEY;
use crate::model::cidr::Cidr;

/// Headers of programs that pass on what others sent: whoever the peer is, it is not the sender.
const FORWARDING: [&str; 9] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "via",
];

/// The door of a surface.
#[derive(Clone)]
pub struct Door {
    app: App,
    rules: Arc<Rules>,
}

/// Whom it lets in.
#[derive(Debug)]
struct Rules {
    networks: Vec<Cidr>,
    hosts: Vec<String>,
}

impl Door {
    /// One that lets this machine's programs in, and peers of these networks; requests may be sent to `localhost`, to
    /// addresses and to these names. A network that cannot be read lets nobody in; the configuration has refused it
    /// before.
    pub fn new(app: &App, networks: &[String], hosts: &[String]) -> Self {
        let networks = networks.iter().filter_map(|text| text.parse().ok()).collect();
        let hosts = hosts.iter().map(|name| plain(name)).collect();
        Self { app: app.clone(), rules: Arc::new(Rules { networks, hosts }) }
    }

    /// Puts the door before a handler that reads JSON, if it reads a body at all.
    pub fn before(&self, reads_body: bool, handler: MethodRouter<App>) -> MethodRouter<App> {
        handler.route_layer(middleware::from_fn_with_state((self.clone(), reads_body), pass))
    }

    /// Whether a request may come without a key.
    ///
    /// # Errors
    /// [`Refusal::MissingKey`] for who is not let in, [`Refusal::Forbidden`] for what a browser sends for somebody else.
    pub fn lets_in(&self, request: &Request) -> Result<(), Fault> {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        let origin = self.app.admission.origin(&gate::credentials(request.headers(), peer));
        let sender = Sender { peer: peer.map(|peer| peer.ip().to_canonical()), origin };
        self.rules.judge(&sender, request.uri(), request.headers())
    }
}

async fn pass(State((door, reads_body)): State<(Door, bool)>, mut request: Request, next: Next) -> Response {
    // A key, be it wrong, is for the gate.
    if !request.headers().contains_key(header::AUTHORIZATION) {
        if let Err(fault) = door.lets_in(&request) {
            return fault.into_response();
        }
        if reads_body && !is_json(request.headers()) {
            return Fault::Bad("Content-Type must be application/json".into()).into_response();
        }
        request.extensions_mut().insert(StandIn(LOCAL_KEY));
    }
    next.run(request).await
}

/// Where a request comes from.
struct Sender {
    /// The TCP peer.
    peer: Option<IpAddr>,
    /// Behind proxies that are trusted: what they say.
    origin: Option<IpAddr>,
}

impl Rules {
    /// Whether a request may come without a key.
    fn judge(&self, sender: &Sender, uri: &Uri, headers: &HeaderMap) -> Result<(), Fault> {
        let forwarded = FORWARDING.iter().any(|name| headers.contains_key(*name));
        let own = !forwarded && sender.peer.is_some_and(|peer| peer.is_loopback());
        // What a peer says of others counts only where it is trusted, and then the origin is not the peer.
        let known = if forwarded { sender.origin.filter(|ip| Some(*ip) != sender.peer) } else { sender.peer };
        let named = known.is_some_and(|ip| self.networks.iter().any(|network| network.contains(ip)));
        if !own && !named {
            return Err(Refusal::MissingKey.into());
        }
        let host = only(headers, &header::HOST).map(host_of).filter(|host| self.knows(host));
        let asked = uri.host().is_none_or(|host| self.knows(&plain(host)));
        let Some(host) = host.filter(|_| asked) else { return Err(Refusal::Forbidden.into()) };
        if headers.contains_key(header::ORIGIN) {
            let origin = only(headers, &header::ORIGIN).and_then(|text| text.split_once("://"));
            if origin.is_none_or(|(_, authority)| host_of(authority) != host) {
                return Err(Refusal::Forbidden.into());
            }
        }
        Ok(())
    }

    /// A name that nobody else can make lead here: else a page of that name would be of the same origin.
    fn knows(&self, host: &str) -> bool {
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        host == "localhost" || literal.parse::<IpAddr>().is_ok() || self.hosts.iter().any(|name| name == host)
    }
}

/// The header's value, where it is there once and text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok();
    value.filter(|_| values.next().is_none())
}

/// `host` of `host[:port]`, as names are compared.
fn host_of(authority: &str) -> String {
    let end =
        if authority.starts_with('[') { authority.find(']').map(|at| at + 1) } else { authority.find(':') };
    plain(&authority[..end.unwrap_or(authority.len())])
}

/// A name as names are compared: case and a last dot mean nothing.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// A body of JSON: what a page of another origin cannot send without asking first.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = only(headers, &header::CONTENT_TYPE).and_then(|text| text.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn rules() -> Rules {
        Rules { networks: vec!["192.168.0.0/16".parse().unwrap()], hosts: vec!["voice.home.arpa".into()] }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn judged(peer: &str, origin: &str, pairs: &[(&'static str, &str)]) -> Result<(), Fault> {
        let sender = Sender { peer: peer.parse().ok(), origin: origin.parse().ok() };
        rules().judge(&sender, &Uri::from_static("/api/calls"), &headers(pairs))
    }

    #[test]
    fn programs_of_this_machine_and_of_named_networks_need_no_key() {
        let host = ("host", "localhost:3000");
        let unauthorized = Err(Fault::Refused(Refusal::MissingKey));
        for peer in ["127.0.0.1", "127.8.8.8", "::1", "192.168.1.7"] {
            assert_eq!(judged(peer, peer, &[host]), Ok(()), "{peer}");
        }
        for peer in ["10.0.0.1", "203.0.113.1", "2001:db8::1", ""] {
            assert_eq!(judged(peer, peer, &[host]), unauthorized, "{peer}");
        }
        for name in FORWARDING {
            assert_eq!(
                judged("127.0.0.1", "127.0.0.1", &[host, (name, "127.0.0.1")]),
                unauthorized,
                "{name}"
            );
            assert_eq!(judged("192.168.1.7", "192.168.1.7", &[host, (name, "x")]), unauthorized, "{name}");
        }
        let through = [host, ("x-forwarded-for", "192.168.1.7")];
        assert_eq!(judged("127.0.0.1", "192.168.1.7", &through), Ok(()), "a trusted proxy says so");
        assert_eq!(judged("127.0.0.1", "10.0.0.1", &through), unauthorized);
    }

    #[test]
    fn names_that_others_could_point_here_are_refused() {
        for (host, good) in [
            ("localhost", true),
            ("LOCALHOST.:3000", true),
            ("127.0.0.1:3000", true),
            ("[::1]:3000", true),
            ("192.168.1.2", true),
            ("voice.home.arpa:3000", true),
            ("Voice.Home.Arpa", true),
            ("evil.com", false),
            ("localhost.evil.com", false),
            ("127.0.0.1.evil.com", false),
            ("", false),
        ] {
            assert_eq!(judged("127.0.0.1", "127.0.0.1", &[("host", host)]).is_ok(), good, "{host}");
        }
        let forbidden = Err(Fault::Refused(Refusal::Forbidden));
        assert_eq!(judged("127.0.0.1", "127.0.0.1", &[]), forbidden);
        assert_eq!(
            judged("127.0.0.1", "127.0.0.1", &[("host", "localhost"), ("host", "localhost")]),
            forbidden
        );
        let sender = Sender { peer: "127.0.0.1".parse().ok(), origin: None };
        let absolute = Uri::from_static("http://evil.com/api/calls");
        assert_eq!(rules().judge(&sender, &absolute, &headers(&[("host", "localhost")])), forbidden);
    }

    #[test]
    fn pages_of_other_hosts_are_refused() {
        for (origin, good) in [
            ("http://localhost:3000", true),
            ("https://LOCALHOST", true),
            ("http://127.0.0.1:3000", false),
            ("https://evil", false),
            ("null", false),
            ("", false),
        ] {
            let pairs = [("host", "localhost:3000"), ("origin", origin)];
            assert_eq!(judged("127.0.0.1", "127.0.0.1", &pairs).is_ok(), good, "{origin}");
        }
    }

    #[test]
    fn json_is_told_by_its_type() {
        for (kind, good) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/jsonp", false),
            ("application/x-www-form-urlencoded", false),
        ] {
            assert_eq!(is_json(&headers(&[("content-type", kind)])), good, "{kind}");
        }
        assert!(!is_json(&headers(&[])));
    }
}
