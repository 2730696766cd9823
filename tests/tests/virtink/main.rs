//! Provider `virtink` against the test host: what it asks of a host cluster, what it refuses before it
//! does, and what is left of it there. Machines are what the player makes of them.
#![expect(clippy::expect_used, reason = "a failure here is the test's failure")]

mod choice;
mod disks;
mod faults;
mod images;
mod install;
mod killed;
mod life;
mod made;
mod midway;
mod persistent;
mod refused;
