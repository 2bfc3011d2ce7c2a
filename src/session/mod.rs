//! One client's connection: who it is, what it may do, and the commands answered here.
//!
//! [`Registry`] knows every [`Client`]; the task that serves a connection owns the writing of its
//! `Client`, others read it (`CLIENT LIST`) or cancel it (`CLIENT KILL`). [`local`] writes the
//! replies that need no node; it is synchronous and does no I/O.

mod access_log;
mod ahead;
mod amount;
mod aside;
mod ask;
mod batch;
mod behind_locks;
mod brought;
mod client;
mod config_set;
mod copies;
mod crossing;
mod directory;
mod dispatch;
mod exec;
mod expiry;
mod gate;
mod here;
mod keyed;
mod loan;
pub mod local;
mod locked;
mod login;
mod many;
mod monitor;
mod moves;
mod past_lanes;
mod pause;
mod pipeline;
mod places;
mod reads;
mod registry;
mod replies;
mod reply_mode;
mod rounds;
mod script_calls;
mod scripts;
mod serve;
mod shared;
mod single;
mod sort;
mod spread;
mod state;
mod subscribe;
mod tables;
mod tally;
mod timing;
mod together;
mod tracking;
mod tracks;
mod transaction;
mod users;
mod watch;

pub use access_log::{AccessLog, Denial, Entry};
pub use ask::{Answer, ask};
pub use client::{Activity, Blocked, Client, Gate};
pub use directory::Directory;
pub use loan::Lent;
pub use monitor::Monitors;
pub use pause::{Pause, Paused};
pub use registry::Registry;
pub use replies::{Backlog, Elements, Place, Pushed, Replies, Ticket};
pub use reply_mode::ReplyMode;
pub use scripts::{Reminded, Scripts};
pub use serve::serve;
pub use shared::{SendSoon, Shared};
pub use timing::{Asked, Notes};
pub use tracking::{Deadline, Tracking, TrackingCounts};
pub use tracks::Tracks;
pub use users::{DEFAULT_USER, Login, Membership, Refused, User, Users};
