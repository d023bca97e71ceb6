//! Speech, recognition and language models against servers of our own that speak the services' wire formats: answers
//! cut anywhere, refusals, pauses, broken connections, and what follows from them.

#![expect(clippy::unwrap_used, reason = "tests")]

mod hearing;
mod llm;
mod server;
mod speech;
mod voices;
