//! Campaigns: one agent calls many contacts, each at a time that is right for them, none twice (CONTRACT 1.3, 3 S17 to
//! S20). What a contact has come to is in the database, changed in the transactions of its call, so that neither a crash
//! nor a second process makes a call that was made before.
//!
//! [`hours`] knows when may be called, [`course`] how many calls may begin now, [`import`] reads lists of contacts;
//! these three are pure. [`driver`] asks them, and has the calls placed as any other call is;
//! [`farewell`] ends those of who asks by key not to be called again. This room never speaks
//! SIP, and never decides what a key may do: that is asked of control, for each call.

pub mod course;
pub mod driver;
pub mod farewell;
pub mod hours;
pub mod import;
pub mod preflight;

pub use hours::{Days, Hours};
