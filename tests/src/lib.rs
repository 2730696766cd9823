//! What the whole-binary tests share: a clean environment, what a test needs and why it was
//! skipped, a look at what was left behind, and the lab. It knows the binary by its command line
//! only, never by its modules.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test support: a failure here is the test's failure, and a skip has to be seen"
)]

mod alone;
mod background;
pub mod cluster;
mod console;
pub mod crowd;
pub mod env;
pub mod faulty;
pub mod hollow;
pub mod host;
pub mod hosted;
pub mod images;
pub mod lab;
pub mod leftovers;
pub mod need;
pub mod player;
pub mod registry;
pub mod timing;
pub mod usage;
pub mod vms;
pub mod wait;

pub use alone::alone;
pub use cluster::Cluster;
pub use console::Console;
pub use crowd::Crowd;
pub use env::Env;
pub use faulty::Faulty;
pub use hollow::Hollow;
pub use host::Host;
pub use hosted::Hosted;
pub use lab::Lab;
pub use leftovers::Snapshot;
pub use need::Need;
pub use player::Player;
pub use registry::Registry;
pub use timing::Steps;
pub use usage::Usage;
pub use vms::Vms;
