//! Transfers that we ask for (RFC 3515; RFC 5589 for the flows, RFC 3891 for `Replaces`, RFC 3420 for the reports).
//!
//! Owns one REFER of ours at a time and the reports about it. Never hangs up by itself: who asked for the transfer decides
//! when the call has become superfluous. A REFER of theirs is refused elsewhere.

use std::time::Instant;

use super::{Call, Phase};
use crate::headers::content_type;
use crate::message::{Method, Request, Response};
use crate::stack::{Failure, Stack};
use crate::transaction::TxId;
use crate::uri::Uri;
use crate::{Replaces, SessionError, SessionEvent, Transfer};

/// Longest phrase of a report that is passed on, in bytes.
const MAX_REASON: usize = 128;

/// `Refer-To` with the dialog to be replaced as an escaped header of the URI (RFC 5589 §7.1).
fn refer_to(to: &Uri, replaces: Option<&Replaces>) -> String {
    let Some(Replaces { call_id, to_tag, from_tag }) = replaces else { return format!("<{to}>") };
    let value = format!("{call_id};to-tag={to_tag};from-tag={from_tag}");
    let mut escaped = String::with_capacity(value.len() + 16);
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    let to = to.to_string();
    let joint = if to.contains('?') { '&' } else { '?' };
    format!("<{to}{joint}Replaces={escaped}>")
}

/// The status and phrase of a `message/sipfrag` that is a status line.
fn read_report(request: &Request) -> Option<(u16, String)> {
    let kind = request.headers.get("Content-Type").map(|value| content_type(value).0)?;
    if kind != "message/sipfrag" {
        return None;
    }
    let end = request.body.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(request.body.len());
    let line = String::from_utf8_lossy(&request.body[..end.min(2 * MAX_REASON)]).into_owned();
    let mut words = line.splitn(3, ' ');
    let code: u16 = words.next().filter(|version| *version == "SIP/2.0").and(words.next())?.parse().ok()?;
    let mut reason = words.next().unwrap_or("").trim().to_owned();
    reason.truncate(reason.floor_char_boundary(MAX_REASON));
    (100..700).contains(&code).then_some((code, reason))
}

impl Call {
    pub(super) fn refer(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        to: &Uri,
        replaces: Option<&Replaces>,
    ) -> Result<(), SessionError> {
        if self.phase != Phase::Confirmed {
            return Err(SessionError::NotConfirmed);
        }
        if self.transfer.is_some() {
            return Err(SessionError::Pending);
        }
        if stack.is_full() {
            return Err(SessionError::Busy);
        }
        let value = refer_to(to, replaces);
        if value.chars().any(char::is_control) {
            return Err(SessionError::Value);
        }
        self.login_tries = 0;
        let seq = self.dialog.next_seq();
        let mut request = self.dialog.numbered(Method::Refer, seq);
        self.present(&mut request.headers);
        request.headers.push("Refer-To", value);
        request.headers.push("Referred-By", format!("<{}>", self.dialog.local.uri));
        let peer = self.dialog.next_hop();
        self.transfer = Some(self.send_inside(now, stack, request, seq, peer));
        Ok(())
    }

    /// The answer to our REFER. `retried` is its next transaction when it was challenged.
    pub(super) fn referred(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        response: &Response,
        retried: Option<TxId>,
    ) {
        if retried.is_some() {
            self.transfer = retried;
            return;
        }
        match response.code {
            200..300 => self.emit(stack, SessionEvent::Transfer(Transfer::Accepted)),
            code => {
                self.transfer = None;
                self.emit(stack, SessionEvent::Transfer(Transfer::Refused { code }));
            }
        }
        match response.code {
            481 => self.dialog_gone(now, stack, response),
            408 => self.lost(now, stack, Failure::TimedOut),
            _ => {}
        }
    }

    /// No answer to our REFER.
    pub(super) fn refer_failed(&mut self, stack: &mut Stack) {
        self.transfer = None;
        self.emit(stack, SessionEvent::Transfer(Transfer::Refused { code: 408 }));
    }

    /// A NOTIFY inside the dialog: answered always, and told when it is about our REFER (RFC 3515 §2.4.4).
    pub(super) fn notified(&mut self, now: Instant, stack: &mut Stack, tx: TxId, request: &Request) {
        self.reply(now, stack, tx, 200);
        let event = request.headers.get("Event").map(|value| content_type(value).0);
        if self.transfer.is_none() || event.as_deref() != Some("refer") {
            return;
        }
        let state = request.headers.get("Subscription-State").map(|value| content_type(value).0);
        let over = state.as_deref() == Some("terminated");
        let told = match read_report(request) {
            Some((code, reason)) if code < 200 && !over => Transfer::Progress { code, reason },
            Some((code, _)) if code >= 200 => Transfer::Finished { code: Some(code) },
            Some(_) | None if over => Transfer::Finished { code: None },
            Some(_) | None => return,
        };
        if matches!(told, Transfer::Finished { .. }) {
            self.transfer = None;
        }
        self.emit(stack, SessionEvent::Transfer(told));
    }

    /// The name of this dialog as its far end knows it.
    pub(super) fn replaces(&self) -> Option<(Uri, Replaces)> {
        (self.phase == Phase::Confirmed).then(|| {
            let replaces = Replaces {
                call_id: self.dialog.call_id.clone(),
                to_tag: self.dialog.remote_tag().to_owned(),
                from_tag: self.dialog.local_tag().to_owned(),
            };
            (self.dialog.target.clone(), replaces)
        })
    }
}
