//! Restore and migration: what contradicts itself. Whether a snapshot fits is Cloud Hypervisor's to say.

use std::collections::BTreeSet;

use super::Problem;
use super::check::Check;
use crate::migration::{
    MemoryRestoreMode, MigrationMode, MigrationUrl, ReceiveMigration, RestoreConfig, SendMigration,
};

/// The most TCP connections of a migration.
const CONNECTIONS: u32 = 128;

/// What is wrong with a restore that carries `fds` descriptors.
#[must_use]
pub fn restore_problems(restore: &RestoreConfig, fds: usize) -> Vec<Problem> {
    let mut check = Check::default();
    let url = restore.source_url.strip_prefix("file://");
    let reason = "is not file:///DIRECTORY";
    check.wrong_if(url.is_none_or(str::is_empty), "source_url", reason);
    let late = restore.memory_restore_mode == Some(MemoryRestoreMode::OnDemand);
    let reason = "can't be with memory_restore_mode OnDemand";
    check.wrong_if(restore.prefault && late, "prefault", reason);
    let mut ids = BTreeSet::new();
    for (index, net) in restore.net_fds.iter().enumerate() {
        let field = format!("net_fds[{index}]");
        check.wrong_if(net.num_fds == 0, format!("{field}.num_fds"), "is 0");
        let twice = !ids.insert(&net.id);
        check.wrong_if(twice, format!("{field}.id"), "is named twice");
    }
    let named = restore
        .net_fds
        .iter()
        .fold(0usize, |sum, net| sum.saturating_add(net.num_fds));
    if named != fds {
        let reason = format!("speaks of {named} descriptors, and {fds} are sent");
        check.wrong("net_fds", reason);
    }
    check.found
}

/// What is wrong with a migration's source side.
#[must_use]
pub fn send_problems(migration: &SendMigration) -> Vec<Problem> {
    let mut check = Check::default();
    let url = &migration.destination_url;
    check.address("destination_url", url, migration.tls_dir.is_some());
    let unix = matches!(url, MigrationUrl::Unix(_));
    let connections = migration.connections.unwrap_or(1);
    if connections == 0 || connections > CONNECTIONS {
        check.wrong("connections", format!("is not 1 … {CONNECTIONS}"));
    }
    check.wrong_if(connections > 1 && unix, "connections", "is for TCP only");
    let reason = "needs a Unix socket";
    check.wrong_if(migration.local && !unix, "local", reason);
    if migration.memory_mode == Some(MigrationMode::Postcopy) {
        let field = "memory_mode";
        check.wrong_if(migration.local, field, "Postcopy can't be with local");
        let reason = "Postcopy needs a single connection";
        check.wrong_if(connections > 1, field, reason);
    }
    check.wrong_if(migration.downtime_ms == Some(0), "downtime_ms", "is 0");
    check.wrong_if(migration.timeout_s == Some(0), "timeout_s", "is 0");
    check.found
}

/// What is wrong with a migration's destination side.
#[must_use]
pub fn receive_problems(migration: &ReceiveMigration) -> Vec<Problem> {
    let mut check = Check::default();
    let tls = migration.tls_dir.is_some();
    check.address("receiver_url", &migration.receiver_url, tls);
    check.found
}

impl Check {
    fn address(&mut self, field: &str, url: &MigrationUrl, tls: bool) {
        match url {
            MigrationUrl::Unix(path) => {
                self.socket(field, path);
                self.wrong_if(tls, "tls_dir", "is for TCP only");
            }
            MigrationUrl::Tcp(address) => {
                let port = address
                    .rsplit_once(':')
                    .filter(|(host, _)| !host.is_empty());
                let port = port.and_then(|(_, port)| port.parse::<u16>().ok());
                let reason = "is not HOST:PORT";
                self.wrong_if(port.is_none_or(|port| port == 0), field, reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::RestoredNet;

    fn fields(problems: Vec<Problem>) -> Vec<String> {
        problems.into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn a_restore_adds_up() {
        let net = |id: &str, num_fds| RestoredNet {
            id: id.into(),
            num_fds,
        };
        let good = RestoreConfig {
            source_url: "file:///s".into(),
            net_fds: vec![net("a", 1), net("b", 2)],
            ..RestoreConfig::default()
        };
        assert_eq!(restore_problems(&good, 3), []);
        assert_eq!(fields(restore_problems(&good, 2)), ["net_fds"]);
        let mut bad = good.clone();
        bad.source_url = "/s".into();
        bad.prefault = true;
        bad.memory_restore_mode = Some(MemoryRestoreMode::OnDemand);
        bad.net_fds[1] = net("a", 0);
        assert_eq!(
            fields(restore_problems(&bad, 1)),
            [
                "source_url",
                "prefault",
                "net_fds[1].num_fds",
                "net_fds[1].id"
            ]
        );
    }

    #[test]
    fn a_migration_does_not_contradict_itself() {
        let unix = SendMigration {
            destination_url: MigrationUrl::Unix("/m".into()),
            ..SendMigration::default()
        };
        let tcp = SendMigration {
            destination_url: MigrationUrl::Tcp("[::1]:4000".into()),
            connections: Some(128),
            tls_dir: Some("/t".into()),
            ..SendMigration::default()
        };
        for good in [&unix, &tcp] {
            assert_eq!(send_problems(good), []);
        }
        let cases: [(SendMigration, &str); 6] = [
            (SendMigration::default(), "destination_url"),
            (
                SendMigration {
                    destination_url: MigrationUrl::Tcp("host".into()),
                    ..unix.clone()
                },
                "destination_url",
            ),
            (
                SendMigration {
                    connections: Some(2),
                    ..unix.clone()
                },
                "connections",
            ),
            (
                SendMigration {
                    tls_dir: Some("/t".into()),
                    ..unix
                },
                "tls_dir",
            ),
            (
                SendMigration {
                    local: true,
                    ..tcp.clone()
                },
                "local",
            ),
            (
                SendMigration {
                    memory_mode: Some(MigrationMode::Postcopy),
                    ..tcp
                },
                "memory_mode",
            ),
        ];
        for (bad, field) in cases {
            assert_eq!(fields(send_problems(&bad)), [field]);
        }
        let receive = ReceiveMigration::default();
        assert_eq!(fields(receive_problems(&receive)), ["receiver_url"]);
    }
}
