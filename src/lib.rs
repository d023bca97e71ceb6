//! trunkline, the server: one engine, HTTP surfaces above it, carriers below. This file is the map of the rooms and
//! the only place where they are wired together.
//!
//! ```text
//! customer ── HTTP ──▶ api/<dialect> ──▶ control ──▶ engine ──▶ sip ──▶ carrier
//!     ▲                (translate)      (may I?     (what      media ──▶ (RTP)
//!     │                                  which way?)  now?)      │
//!  webhook ◀── outbox ◀── journal ◀───────── CallEvent ──────────┘
//! (deliver)   (store)    (remember)
//! ```
//!
//! Orders and commands go down, events come out, nothing asks back. A room imports only rooms below it.

pub mod agent;
pub mod api;
pub mod campaigns;
pub mod carrier;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod engine;
pub mod hearing;
pub mod http;
pub mod journal;
pub mod llm;
pub mod model;
pub mod provider;
pub mod recordings;
pub mod relay;
pub mod server;
pub mod speech;
pub mod store;
pub mod webhook;
