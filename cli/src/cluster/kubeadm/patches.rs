//! What is changed in the static pods that kubeadm writes on a control plane, as patch files of its
//! own kind (`kubeadm init --help`, `--patches`). Knows nothing of clusters: the same for all.

/// Where kubeadm finds them.
pub(crate) const DIRECTORY: &str = "/etc/kubernetes/patches";

/// The file of each static pod, by its path.
///
/// All have one purpose: a machine that is short of processor answers late, and to kill and start
/// its API server for that adds the start's work to what was too much already. Under kubeadm's
/// default, 80 s without an answer, such a machine was seen to do nothing else any more. Five minutes
/// tell a slow component from one that hangs.
pub(crate) fn files() -> impl Iterator<Item = (String, String)> {
    const COMPONENTS: [&str; 4] = [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
    ];
    COMPONENTS.into_iter().map(|component| {
        // kubeadm's probes are 10 s apart.
        let patch = format!(
            "spec:\n  containers:\n  - name: {component}\n    livenessProbe:\n      failureThreshold: 30\n"
        );
        (format!("{DIRECTORY}/{component}+strategic.yaml"), patch)
    })
}
