//! Keys that the model asked for: a prompt, so many keys or a finishing one, one total time that begins when the prompt
//! is over or the first key is pressed. While it goes on, keys are no interruption and speech gives it up. Pure.

use std::time::{Duration, Instant};

use super::core::Agent;
use super::{Act, Line, Used};
use crate::llm::ToolCall;

/// Keys that are being waited for.
#[derive(Debug)]
pub(super) struct Gathering {
    call: ToolCall,
    wanted: Wanted,
    keys: String,
    due: Option<Instant>,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// So many keys, at least 1.
    pub(super) keys: usize,
    /// Or this one, which is none of them.
    pub(super) finish: Option<char>,
    /// For so long.
    pub(super) within: Duration,
}

impl Gathering {
    pub(super) fn new(call: ToolCall, wanted: Wanted) -> Self {
        Self { call, wanted, keys: String::new(), due: None }
    }

    /// When it ends by itself, once its time runs.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Its time runs from here, unless it runs already.
    pub(super) fn wait(&mut self, now: Instant) {
        self.due.get_or_insert(now + self.wanted.within);
    }

    fn used(self, how: &str) -> Used {
        let result = serde_json::json!({ "digits": self.keys, "ended": how }).to_string();
        Used { call: self.call, result }
    }

    /// What the model is told where the caller spoke instead.
    pub(super) fn given_up(self) -> Used {
        self.used("the caller spoke instead")
    }
}

impl Agent {
    /// Waits for keys from here on; `false` where that is being done already.
    pub(super) fn start_gathering(&mut self, gathering: Gathering) -> bool {
        let free = self.gathering.is_none();
        if free {
            self.gathering = Some(gathering);
        }
        free
    }

    /// A key while keys are waited for: the prompt is not needed any more.
    pub(super) fn gather(&mut self, now: Instant, key: char, acts: &mut Vec<Act>) {
        let Some(gathering) = &mut self.gathering else { return };
        gathering.wait(now);
        let finished = gathering.wanted.finish == Some(key);
        if !finished {
            gathering.keys.push(key);
        }
        let complete = finished || gathering.keys.len() >= gathering.wanted.keys;
        if !self.speaking.is_empty() {
            acts.push(Act::Cut);
        }
        if complete {
            self.gathered(now, acts);
        }
    }

    /// The keys are there, or the time is over.
    pub(super) fn gathered(&mut self, now: Instant, acts: &mut Vec<Act>) {
        let Some(gathering) = self.gathering.take() else { return };
        let complete = gathering.due.is_none_or(|due| now < due);
        let used = gathering.used(if complete { "complete" } else { "no more keys in time" });
        self.remember(Line::Used(used));
        self.news = true;
        self.go_on(now, acts);
    }
}
