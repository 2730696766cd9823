//! What this host can do. [`inspect`] tells what its KVM can, found out by asking it and by running
//! three tiny guests; [`Host::inspect`] what else there is for a VM to use.
//!
//! Asking is not enough: software KVMs (`kvm_pvm` and its like) report every capability that Cloud
//! Hypervisor needs and run its tiny guests, but emulate a guest's kernel mode instruction by
//! instruction and stop at those their emulator does not know, which no stock Linux kernel boots
//! without. So the third guest executes some of these. All of it takes a few milliseconds. Blocking:
//! call it from a thread that may block.

mod host;
mod probe;
mod report;

pub use host::{Host, HugePages, Limit};
pub use probe::{Outcome, Probe};
pub use report::{Access, Limits, Report, Verdict, inspect};
