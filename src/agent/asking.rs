//! Functions of the customer's: the model's call is posted to their address, signed like a webhook, and what they answer
//! goes back to the model. Whatever goes wrong is told to the model in words, so that it never believes that something
//! was done which was not.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Used, tools};
use crate::clock;
use crate::control::Rooms;
use crate::llm::ToolCall;
use crate::model::CallerId;
use crate::model::agent::AgentTool;
use crate::model::call::CallOrder;
use crate::webhook::ask::{AskError, Question};

/// Functions of one call at once.
const ASKING_MAX: usize = 16;
/// Longest answer that the model is told, bytes.
const ANSWER_MAX: usize = 8 * 1024;

/// Begins to ask one, beside everything else.
///
/// # Errors
/// What the model is told where it cannot be asked.
pub(super) fn begin(
    asking: &mut JoinSet<Used>,
    rooms: &Rooms,
    client: &reqwest::Client,
    order: &Arc<CallOrder>,
    tools: &[AgentTool],
    call: ToolCall,
) -> Result<(), Used> {
    let tool = tools.iter().find(|tool| tool.name == call.name).cloned();
    let (Some(tool), true) = (tool, asking.len() < ASKING_MAX) else {
        let result = json!({ "error": "too many functions at once" }).to_string();
        return Err(Used { call, result });
    };
    let (rooms, client) = (rooms.clone(), client.clone());
    // The context as it is now.
    let order = rooms.live.get(order.id).map_or_else(|| Arc::clone(order), |view| Arc::clone(&view.order));
    asking.spawn(async move { ask(&rooms, &client, &order, &tool, call).await });
    Ok(())
}

/// Asks one, once: a function that was asked may have done what it is for, also where no answer came.
async fn ask(
    rooms: &Rooms,
    client: &reqwest::Client,
    order: &CallOrder,
    tool: &AgentTool,
    call: ToolCall,
) -> Used {
    let result = match post(rooms, client, order, tool, &call).await {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(call = %order.id, tool = tool.name, %error, "a customer's function gave nothing");
            json!({ "error": error.to_string() }).to_string()
        }
    };
    Used { call, result }
}

async fn post(
    rooms: &Rooms,
    client: &reqwest::Client,
    order: &CallOrder,
    tool: &AgentTool,
    call: &ToolCall,
) -> Result<String, AskError> {
    let now = clock::now().wall;
    // What cannot be read was refused before.
    let arguments = tools::arguments(call).unwrap_or_default();
    let body = json!({
        "type": "tool.call",
        "timestamp": now.iso_ms(),
        "tool": tool.name,
        "tool_call_id": call.id,
        "arguments": arguments,
        "call_id": order.id.cuid(),
        "call_sid": order.id.call_sid(),
        "agent_id": order.purpose.agent.map(|row| format!("agent_{row}")),
        "direction": order.purpose.direction.as_str(),
        "from": order.from.as_ref().map(CallerId::user),
        "to": order.to.e164(),
        "context": Value::Object(order.purpose.context.clone()),
    });
    let secrets = rooms.db.webhook_secrets(order.key, now).await.map_err(|_| AskError::Unsigned)?;
    let question = Question {
        url: &tool.url,
        body: body.to_string(),
        secrets: &secrets,
        id: &format!("tool_{}_{}", order.id.hex(), call.id),
        at: now,
        within: Duration::from_millis(tool.timeout_ms.into()),
        most: ANSWER_MAX,
    };
    question.ask(client, &rooms.config.webhooks).await
}
