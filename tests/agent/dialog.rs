//! What happens inside and around dialogs, with SIPp as the far end: each scenario holds one point of one RFC, and
//! SIPp fails the run when the program does not play its part.

use serde_json::{Value, json};

use crate::api::Key;
use crate::carrier::Carrier;
use crate::harness::{Server, go, number};
use crate::receiver::Receiver;
use crate::sipp::Sipp;

/// A server with a trunk to one scenario.
struct Stage {
    _server: Server,
    far: Sipp,
    key: Key,
    hooks: Receiver,
}

impl Stage {
    async fn new(scenario: &str) -> Self {
        let server = Server::start(scenario, &[]).await;
        let far = Sipp::start(scenario, 1).await;
        let (key, _) = server.key_on("10", &[far.addr]);
        Self { _server: server, far, key, hooks: Receiver::start().await }
    }

    fn order(&self) -> Value {
        json!({"number": number("0100"), "webhookUrl": self.hooks.url()})
    }

    /// A call that the far end ends as its scenario says; the last webhook.
    async fn until_they_hang_up(mut self) -> Value {
        self.key.call(&self.order()).await;
        let ended = self.hooks.wait("call.ended").await.json;
        self.far.went_well().await;
        ended
    }

    /// A call that is hung up over HTTP as soon as a message with this text was sent or received; the last webhook.
    async fn until_we_hang_up(mut self, said: &str) -> Value {
        let call = self.key.answered_call(&self.order()).await;
        self.far.said(said).await;
        self.key.hang_up(&call).await;
        let ended = self.hooks.wait("call.ended").await.json;
        self.far.went_well().await;
        ended
    }
}

fn cause(ended: &Value) -> (&str, &str) {
    let text = |name: &str| ended[name].as_str().unwrap_or_default();
    (text("endReason"), text("hangupCause"))
}

#[test]
fn a_plain_call_is_answered_and_hung_up() {
    go(async {
        let ended = Stage::new("answer").await.until_we_hang_up("\nACK ").await;
        assert_eq!(cause(&ended), ("api_hangup", "16"));
    });
}

#[test]
fn what_is_said_reliably_is_acknowledged() {
    go(async {
        let ended = Stage::new("prack").await.until_we_hang_up("\nACK ").await;
        assert_eq!(cause(&ended), ("api_hangup", "16"));
    });
}

#[test]
fn updates_are_answered_before_and_after_the_answer() {
    go(async {
        let ended = Stage::new("update").await.until_they_hang_up().await;
        assert_eq!(cause(&ended), ("normal_hangup", "16"));
    });
}

/// FIELD 5.3: the time that the callee imposes is kept.
#[test]
fn a_session_interval_too_small_is_raised() {
    go(async {
        Stage::new("timer_422").await.until_we_hang_up("\nACK ").await;
    });
}

#[test]
fn a_session_is_refreshed_by_update() {
    go(async {
        Stage::new("timer_update").await.until_they_hang_up().await;
    });
}

#[test]
fn a_session_is_refreshed_by_reinvite_where_update_is_not_taken() {
    go(async {
        let mut stage = Stage::new("timer_reinvite").await;
        stage.key.call(&stage.order()).await;
        stage.far.went_well().await;
        let messages = stage.far.messages();
        let offers: Vec<&str> = messages.lines().filter(|line| line.starts_with("o=- ")).collect();
        assert!(offers.len() >= 2, "{messages}");
        assert!(offers.iter().all(|offer| *offer == offers[0]), "nothing has changed: {offers:?}");
    });
}

#[test]
fn a_session_that_nobody_refreshes_is_ended() {
    go(async {
        let ended = Stage::new("timer_expiry").await.until_they_hang_up().await;
        assert_eq!(cause(&ended), ("trunk_failure", "41"));
    });
}

/// FIELD 5.32: a hold is answered by what was asked, not by what was said before.
#[test]
fn every_kind_of_hold_is_answered() {
    go(async {
        Stage::new("hold").await.until_they_hang_up().await;
    });
}

/// FIELD 5.13: who asks for our offer gets a whole one.
#[test]
fn a_reinvite_without_an_offer_gets_ours() {
    go(async {
        Stage::new("offerless").await.until_they_hang_up().await;
    });
}

#[test]
fn reinvites_that_cross_are_sorted_out() {
    go(async {
        Stage::new("glare").await.until_they_hang_up().await;
    });
}

/// FIELD 5.39: of several far ends the first to answer has the call, and the others are hung up.
#[test]
fn of_two_forks_one_has_the_call() {
    go(async {
        let ended = Stage::new("fork").await.until_we_hang_up("\nBYE ").await;
        assert_eq!(cause(&ended), ("api_hangup", "16"));
    });
}

/// X32: a redirection is a failure of this attempt and nothing else.
#[test]
fn a_redirection_is_not_followed() {
    go(async {
        let stage = Stage::new("redirect").await;
        let placed = stage.key.post("/makecall", &stage.order()).await;
        assert!(placed.status >= 400, "{}", placed.status);
        let mut far = stage.far;
        far.went_well().await;
        let messages = far.messages();
        assert_eq!(messages.matches("\nINVITE ").count(), 1, "{messages}");
    });
}

/// FIELD 5.27: a BYE with several reasons is read, and its Q.850 cause wins.
#[test]
fn a_cause_of_theirs_is_told() {
    go(async {
        let ended = Stage::new("reason").await.until_they_hang_up().await;
        assert_eq!(cause(&ended), ("normal_hangup", "31"));
        let ended = Stage::new("refused_reason").await.until_they_hang_up().await;
        assert_eq!(cause(&ended), ("no_answer", "20"));
    });
}

#[test]
fn keys_by_info_are_heard() {
    go(async {
        let mut stage = Stage::new("info_keys").await;
        let call = stage.key.answered_call(&stage.order()).await;
        stage.hooks.wait_nth("dtmf.received", 3).await;
        let all = stage.hooks.all();
        let keys = all.iter().filter(|hook| hook.event() == "dtmf.received");
        let digits: String = keys.filter_map(|hook| hook.json["digit"].as_str()).collect();
        assert_eq!(digits, "42#");
        stage.key.hang_up(&call).await;
        stage.far.went_well().await;
    });
}

/// FIELD 5.18: NOTIFY is answered 200; a REFER is declined, since a transfer costs whoever is asked.
#[test]
fn methods_that_nobody_asked_for_have_their_answers() {
    go(async {
        Stage::new("methods").await.until_we_hang_up("\nSIP/2.0 500 ").await;
    });
}

/// The called side, which is that of the built-in far end, with SIPp as the caller; all that was said.
async fn called_by(scenario: &str, digits: &str) -> String {
    let home = crate::harness::home(scenario);
    let far = Carrier::start(&home.join("carrier"), false).await;
    let mut caller = Sipp::call(scenario, far.addr, digits).await;
    caller.went_well().await;
    caller.messages()
}

#[test]
fn a_caller_that_requires_100rel_gets_it() {
    go(async {
        let messages = called_by("uac_prack", "0014155550310").await;
        assert!(messages.contains("RSeq: "), "{messages}");
        let messages = called_by("uac_unacknowledged", "0014155550310").await;
        let early = messages.matches("SIP/2.0 183").count();
        assert!((3..=4).contains(&early), "at 0, 0.5 and 1.5 s, not {early} times:\n{messages}");
    });
}

#[test]
fn a_caller_with_a_session_timer_gets_one() {
    go(async {
        let messages = called_by("uac_timer", "0014155550100").await;
        assert!(messages.contains("Min-SE: 90"), "{messages}");
    });
}
