//! The JSON that stands in TEXT columns: a call's trunks and attempts, its running gather, the data of an event.
//! Only the store reads these back; what customers see is written by the dialects.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{StoreError, turns};
use crate::model::Secret;
use crate::model::agent::AgentTool;
use crate::model::call::{AttemptView, GatherView, Hop, PassedView, TrunkPlan};
use crate::model::event::{CallEvent, DigitSource};

/// A trunk of a call's plan, without its credentials: a call that is read back is never dialled again.
#[derive(Serialize, Deserialize)]
struct TrunkRow {
    endpoint: String,
    host: String,
    port: Option<u16>,
    /// The first that was tried.
    address: Option<SocketAddr>,
    dial_prefix: String,
    codecs: Vec<String>,
    no_response_timeout_ms: u32,
}

#[derive(Serialize, Deserialize)]
struct AttemptRow {
    trunk: String,
    code: Option<u16>,
    reason: String,
    elapsed_ms: u32,
    #[serde(default)]
    retry_after_s: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct PassedRow {
    trunk: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct GatherRow {
    expected: u8,
    timeout_ms: u32,
    digits: String,
}

/// The `trunks` column.
pub(super) fn write_trunks(trunks: &[TrunkPlan]) -> String {
    let rows: Vec<Value> = trunks
        .iter()
        .map(|trunk| {
            json!(TrunkRow {
                endpoint: trunk.endpoint.clone(),
                host: trunk.host.clone(),
                port: trunk.port,
                address: trunk.hops.first().map(|hop| hop.address),
                dial_prefix: trunk.dial_prefix.clone(),
                codecs: trunk.codecs.clone(),
                no_response_timeout_ms: trunk.no_response_timeout_ms,
            })
        })
        .collect();
    Value::Array(rows).to_string()
}

/// Reads [`write_trunks`] back; user, password, caller id and profile are empty.
pub(super) fn read_trunks(text: &str) -> Result<Vec<TrunkPlan>, StoreError> {
    let rows: Vec<TrunkRow> =
        serde_json::from_str(text).map_err(|_| StoreError::Unreadable("calls.trunks"))?;
    let plan = |row: TrunkRow| TrunkPlan {
        endpoint: row.endpoint,
        host: row.host,
        port: row.port,
        hops: row.address.map(Hop::udp).into_iter().collect(),
        username: String::new(),
        password: Secret::default(),
        dial_prefix: row.dial_prefix,
        codecs: row.codecs,
        caller_id: None,
        no_response_timeout_ms: row.no_response_timeout_ms,
        profile: Arc::default(),
    };
    Ok(rows.into_iter().map(plan).collect())
}

/// The `attempts` column.
pub(super) fn write_attempts(attempts: &[AttemptView]) -> String {
    let row = |a: &AttemptView| {
        let (trunk, reason) = (a.trunk.clone(), a.reason.clone());
        let (code, elapsed_ms, retry_after_s) = (a.code, a.elapsed_ms, a.retry_after_s);
        json!(AttemptRow { trunk, code, reason, elapsed_ms, retry_after_s })
    };
    Value::Array(attempts.iter().map(row).collect()).to_string()
}

/// Reads [`write_attempts`] back.
pub(super) fn read_attempts(text: &str) -> Result<Vec<AttemptView>, StoreError> {
    let rows: Vec<AttemptRow> =
        serde_json::from_str(text).map_err(|_| StoreError::Unreadable("calls.attempts"))?;
    let view = |row: AttemptRow| AttemptView {
        trunk: row.trunk,
        code: row.code,
        reason: row.reason,
        elapsed_ms: row.elapsed_ms,
        retry_after_s: row.retry_after_s,
    };
    Ok(rows.into_iter().map(view).collect())
}

/// The `passed` column.
pub(super) fn write_passed(passed: &[PassedView]) -> String {
    let row = |p: &PassedView| json!(PassedRow { trunk: p.trunk.clone(), reason: p.reason.clone() });
    Value::Array(passed.iter().map(row).collect()).to_string()
}

/// Reads [`write_passed`] back.
pub(super) fn read_passed(text: &str) -> Result<Vec<PassedView>, StoreError> {
    let rows: Vec<PassedRow> =
        serde_json::from_str(text).map_err(|_| StoreError::Unreadable("calls.passed"))?;
    Ok(rows.into_iter().map(|row| PassedView { trunk: row.trunk, reason: row.reason }).collect())
}

/// The `gather` column.
pub(super) fn write_gather(gather: &GatherView) -> String {
    let digits = gather.digits.clone();
    json!(GatherRow { expected: gather.expected, timeout_ms: gather.timeout_ms, digits }).to_string()
}

/// Reads [`write_gather`] back.
pub(super) fn read_gather(text: &str) -> Result<GatherView, StoreError> {
    let row: GatherRow = serde_json::from_str(text).map_err(|_| StoreError::Unreadable("calls.gather"))?;
    Ok(GatherView { expected: row.expected, timeout_ms: row.timeout_ms, digits: row.digits })
}

/// A column that holds a customer's own JSON object.
pub(super) fn write_object(object: &Map<String, Value>) -> String {
    Value::Object(object.clone()).to_string()
}

/// Reads [`write_object`] back.
pub(super) fn read_object(text: &str) -> Result<Map<String, Value>, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Unreadable("JSON object"))
}

/// A customer's function.
#[derive(Serialize, Deserialize)]
struct ToolRow {
    name: String,
    description: String,
    parameters: Map<String, Value>,
    url: String,
    timeout_ms: u32,
    #[serde(default)]
    filler: Option<String>,
}

/// The `tools` column of an agent.
pub(super) fn write_tools(tools: &[AgentTool]) -> String {
    let row = |tool: &AgentTool| {
        json!(ToolRow {
            name: tool.name.clone(),
            description: tool.description.clone(),
            parameters: tool.parameters.clone(),
            url: tool.url.clone(),
            timeout_ms: tool.timeout_ms,
            filler: tool.filler.clone(),
        })
    };
    Value::Array(tools.iter().map(row).collect()).to_string()
}

/// Reads [`write_tools`] back.
pub(super) fn read_tools(text: &str) -> Result<Vec<AgentTool>, StoreError> {
    let rows: Vec<ToolRow> =
        serde_json::from_str(text).map_err(|_| StoreError::Unreadable("agents.tools"))?;
    let tool = |row: ToolRow| AgentTool {
        name: row.name,
        description: row.description,
        parameters: row.parameters,
        url: row.url,
        timeout_ms: row.timeout_ms,
        filler: row.filler,
    };
    Ok(rows.into_iter().map(tool).collect())
}

/// The `data` column of the event log: the event's own fields as a JSON object.
pub fn event_data(event: &CallEvent) -> String {
    let value = match event {
        CallEvent::Queued | CallEvent::Proceeding | CallEvent::Ringing | CallEvent::Answered => json!({}),
        CallEvent::Dialing { trunk, attempt } => json!({ "trunk": trunk, "attempt": attempt }),
        CallEvent::AttemptFailed { trunk, code, reason, elapsed_ms, retry_after_s, fault: _ } => json!({
            "trunk": trunk, "code": code, "reason": reason, "elapsed_ms": elapsed_ms,
            "retry_after_s": retry_after_s,
        }),
        CallEvent::PassedOver { trunk, reason } => json!({ "trunk": trunk, "reason": reason }),
        CallEvent::Screened(amd) => {
            json!({ "status": amd.status.as_str(), "cause": amd.cause, "confidence": amd.confidence })
        }
        CallEvent::RecordingStarted { recording }
        | CallEvent::RecordingStopped { recording }
        | CallEvent::RecordingPaused { recording }
        | CallEvent::RecordingResumed { recording } => json!({ "recording": recording }),
        CallEvent::RecordingCompleted { recording, size, sha256 } => json!({
            "recording": recording, "bytes": size.bytes, "duration_ms": size.duration_ms, "sha256": sha256.hex(),
        }),
        CallEvent::RecordingFailed { recording, reason, size } => json!({
            "recording": recording, "bytes": size.bytes, "duration_ms": size.duration_ms, "reason": reason,
        }),
        CallEvent::Digit { digit, source } => json!({ "digit": digit, "source": source_word(*source) }),
        CallEvent::GatherStarted { expected, timeout_ms } => {
            json!({ "expected": expected, "timeout_ms": timeout_ms })
        }
        CallEvent::GatherProgress { digits, digit, remaining } => {
            json!({ "digits": digits, "digit": digit, "remaining": remaining })
        }
        CallEvent::GatherComplete { digits } => json!({ "digits": digits }),
        CallEvent::GatherTimeout { digits, reason } => json!({ "digits": digits, "reason": reason.as_str() }),
        CallEvent::Played { playback, text, file, to, completed } => json!({
            "playback": playback, "text": text, "file": file, "to": to.as_str(), "completed": completed,
        }),
        CallEvent::Said { by, text, turn, span } => {
            let mut said = json!({ "by": by.as_str(), "text": text, "turn": turn });
            if let Some(span) = span {
                (said["from"], said["until"]) = (json!(span.from.0), json!(span.until.0));
            }
            said
        }
        CallEvent::TurnTimed(times) => turns::write_times(times),
        CallEvent::ContextChanged { context } => json!({ "context": context }),
        CallEvent::HandedOff { data } => json!({ "data": data }),
        CallEvent::TransferStarted { number } => json!({ "number": number.e164() }),
        CallEvent::TransferFailed { code, reason } => json!({ "code": code, "reason": reason }),
        CallEvent::Transferred => json!({}),
        CallEvent::Unheard { words } => json!({ "words": words }),
        CallEvent::Ended { reason, q850, sip_code } => {
            json!({ "reason": reason.as_str(), "q850": q850, "sip_code": sip_code })
        }
    };
    value.to_string()
}

fn source_word(source: DigitSource) -> &'static str {
    match source {
        DigitSource::Rfc4733 => "rfc4733",
        DigitSource::Inband => "inband",
        DigitSource::Info => "info",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::call::EndReason;

    #[test]
    fn columns_survive_their_text_form_without_secrets() {
        let trunk = TrunkPlan {
            endpoint: "a-endpoint".into(),
            host: "carrier.example".into(),
            port: Some(5070),
            hops: vec![Hop::udp("127.0.0.1:5070".parse().unwrap())],
            username: "user".into(),
            password: Secret("very secret".into()),
            dial_prefix: "00".into(),
            codecs: vec!["PCMU".into()],
            caller_id: None,
            no_response_timeout_ms: 2000,
            profile: Arc::default(),
        };
        let text = write_trunks(std::slice::from_ref(&trunk));
        assert!(!text.contains("secret"), "{text}");
        let back = read_trunks(&text).unwrap();
        assert_eq!(back, [TrunkPlan { username: String::new(), password: Secret::default(), ..trunk }]);

        let attempt = AttemptView {
            trunk: "a".into(),
            code: Some(503),
            reason: "\"quoted\"".into(),
            elapsed_ms: 7,
            retry_after_s: Some(5),
        };
        assert_eq!(read_attempts(&write_attempts(std::slice::from_ref(&attempt))).unwrap(), [attempt]);
        let gather = GatherView { expected: 4, timeout_ms: 10_000, digits: "1#".into() };
        assert_eq!(read_gather(&write_gather(&gather)).unwrap(), gather);
        assert!(read_gather("{}").is_err());
    }

    #[test]
    fn event_data_is_an_object() {
        let ended = CallEvent::Ended { reason: EndReason::Busy, q850: 17, sip_code: Some(486) };
        let data: Value = serde_json::from_str(&event_data(&ended)).unwrap();
        assert_eq!(data, json!({ "reason": "busy", "q850": 17, "sip_code": 486 }));
        assert_eq!(event_data(&CallEvent::Queued), "{}");
    }
}
