//! What a cluster is: its specification and record, its keys, the documents that make a machine a
//! node, and the API that it serves once it runs. Knows no provider and no terminal.

pub(crate) mod addons;
pub(crate) mod address;
pub(crate) mod etcd;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod guest;
pub(crate) mod kubeadm;
pub(crate) mod kubeconfig;
pub(crate) mod name;
pub(crate) mod pki;
pub(crate) mod pool;
pub(crate) mod quantity;
pub(crate) mod record;
pub(crate) mod references;
pub(crate) mod root;
pub(crate) mod spec;
pub(crate) mod token;
pub(crate) mod userdata;
pub(crate) mod version;
