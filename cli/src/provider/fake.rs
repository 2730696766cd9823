//! A provider for tests of what stands above providers: records live in memory, machines in a
//! list, and any act can be told to fail.

use super::{Lock, MachineRequest, MachineState, MachineStatus, NodeAddress, Provider};
use crate::cluster::name::{ClusterName, NodeName};
use crate::cluster::record::{Endpoint, Record};
use crate::cluster::spec::Role;
use crate::failure::{Failure, Result};
use crate::ui::Reporter;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Mutex;

#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) records: Mutex<BTreeMap<ClusterName, Record>>,
    pub(crate) machines: Mutex<Vec<NodeName>>,
    /// The act that fails, by the name of its method.
    pub(crate) fails: Option<&'static str>,
}

impl Fake {
    fn act(&self, name: &str) -> Result<()> {
        match self.fails == Some(name) {
            true => Err(Failure::host(format!("{name} was told to fail"))),
            false => Ok(()),
        }
    }
}

struct Held;
impl Lock for Held {}

#[async_trait]
impl Provider for Fake {
    fn place(&self) -> String {
        "in memory".into()
    }
    fn notes(&self, _: &Record) -> Vec<String> {
        vec![]
    }
    async fn exists(&self, name: &ClusterName) -> Result<bool> {
        Ok(self.records.lock().unwrap().contains_key(name))
    }
    async fn preflight(&self, _: &Record) -> Result<()> {
        self.act("preflight")
    }
    async fn lock(&self, _: &ClusterName) -> Result<Box<dyn Lock>> {
        Ok(Box::new(Held))
    }
    async fn load(&self, name: &ClusterName) -> Result<Option<Record>> {
        Ok(self.records.lock().unwrap().get(name).cloned())
    }
    async fn save(&self, record: &Record) -> Result<()> {
        self.act("save")?;
        self.records
            .lock()
            .unwrap()
            .insert(record.spec.name.clone(), record.clone());
        Ok(())
    }
    async fn forget(&self, name: &ClusterName) -> Result<()> {
        self.act("forget")?;
        self.records.lock().unwrap().remove(name);
        Ok(())
    }
    async fn names(&self) -> Result<Vec<ClusterName>> {
        Ok(self.records.lock().unwrap().keys().cloned().collect())
    }
    async fn reserve_endpoint(&self, _: &Record) -> Result<Endpoint> {
        self.act("reserve_endpoint")?;
        Ok(Endpoint {
            inside: "172.30.0.1:6443".into(),
            outside: "127.0.0.1:1".into(),
            cert_sans: vec!["127.0.0.1".into()],
        })
    }
    fn reserve_address(&self, record: &Record, _: Role) -> Result<NodeAddress> {
        let last = u8::try_from(record.nodes.len() + 10).unwrap();
        let address = std::net::Ipv4Addr::new(172, 30, 0, last);
        Ok(NodeAddress {
            address: Some(address),
            mac: format!("02:00:ac:1e:00:{last:02x}"),
        })
    }
    async fn prepare(&self, _: &Record, _: &dyn Reporter) -> Result<()> {
        self.act("prepare")
    }
    async fn start_machines(&self, _: &Record, machines: &[MachineRequest]) -> Result<()> {
        // Some come to be before others fail.
        let mut there = self.machines.lock().unwrap();
        there.extend(machines.iter().take(1).map(|m| m.node.name.clone()));
        self.act("start_machines")?;
        there.extend(machines.iter().skip(1).map(|m| m.node.name.clone()));
        Ok(())
    }
    async fn machines(&self, _: &ClusterName) -> Result<Vec<MachineStatus>> {
        let status = |name: &NodeName| MachineStatus {
            name: name.clone(),
            state: match self.fails {
                Some("machines") => MachineState::Stopped {
                    reason: "killed by SIGKILL".into(),
                },
                _ => MachineState::Running,
            },
            reboots: 0,
            console_tail: "last words".into(),
        };
        Ok(self.machines.lock().unwrap().iter().map(status).collect())
    }
    async fn stop_machines(&self, _: &Record, _: &dyn Reporter) -> Result<()> {
        self.act("stop_machines")
    }
    async fn resume_machines(&self, _: &Record) -> Result<()> {
        self.act("resume_machines")
    }
    async fn remove_machines(&self, _: &Record, nodes: &[NodeName]) -> Result<()> {
        self.machines
            .lock()
            .unwrap()
            .retain(|name| !nodes.contains(name));
        Ok(())
    }
    async fn seal(&self, _: &Record, _: &[NodeName]) -> Result<()> {
        self.act("seal")
    }
    async fn teardown(&self, _: &ClusterName, _: &dyn Reporter) -> Result<()> {
        self.machines.lock().unwrap().clear();
        Ok(())
    }
}
