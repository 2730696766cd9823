//! One VM: a Cloud Hypervisor process with one machine in it.
//!
//! ```text
//!            create                boot                   pause
//!  (nothing) ──────► Created ─────────────► Running ◄──────────────► Paused
//!                     ▲   ▲                  │  │  ▲     resume         │
//!        failed boot: │   └──────────────────┘  │  │ boot               │
//!        delete +     │        (refused boot)   │  │                    │
//!        create again └─                power_off  │                    │ power_off
//!                                               ▼  │                    ▼
//!                                              Stopped ◄────────────────┘
//!  from every state: guest power-off, stop, kill, crash ──► Ended(exit)
//! ```
//!
//! The truth is `vm.info` and the process's exit. Cloud Hypervisor calls a VM that was shut down
//! `Created`; that it has booted before is in its events, and then it is `Stopped` here. An unanswered
//! call means busy; only an exit means dead. A refused boot would leave Cloud Hypervisor saying "already
//! created" for ever, so the machine is deleted and created anew behind it.

mod calls;
mod devices;
mod handle;
mod state;
mod transfer;
mod watch;

pub use handle::Vm;
pub use state::State;
pub use watch::{RebootPolicy, Watched};
