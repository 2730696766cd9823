//! Images for whoever needs one, command or provider: what a name means, how registries are
//! spoken to, and the store that all images pass through. Nothing here knows a machine.

mod failure;
mod origin;
mod registries;
mod store;

pub(crate) use failure::failure;
pub(crate) use origin::{DIRECTORY, Origin};
pub(crate) use registries::Registries;
pub(crate) use store::{local, missing, names, platform, pull, store, stored};
