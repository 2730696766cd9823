// hollow-kubelet is the kubelet of the tests' hollow nodes: Kubernetes's own hollow kubelet, for which every pod
// runs, over a runtime in which static pods really do (runtime.go). What kubeadm expects of a kubelet, it does: it
// gets its certificate by a bootstrap kubeconfig, says that it is healthy, takes static pods from where kubeadm
// writes them, and serves exec.
package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/pkg/cluster/ports"
	cadvisor "k8s.io/kubernetes/pkg/kubelet/cadvisor/testing"
	"k8s.io/kubernetes/pkg/kubelet/certificate/bootstrap"
	"k8s.io/kubernetes/pkg/kubelet/cm"
	"k8s.io/kubernetes/pkg/kubemark"
)

const (
	directory    = "/etc/kubernetes" // kubeadm's
	certificates = "/var/lib/kubelet/pki"
	health       = "127.0.0.1:10248"
	maxPods      = 110
)

func main() {
	if err := run(context.Background()); err != nil {
		klog.Fatal(err)
	}
}

func run(ctx context.Context) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	config, err := login(ctx, name)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	runtime, err := newRuntime()
	if err != nil {
		return err
	}

	flags, settings := kubemark.GetHollowKubeletConfig(&kubemark.HollowKubeletOptions{
		NodeName:    name,
		KubeletPort: ports.KubeletPort,
		MaxPods:     maxPods,
		NodeLabels:  map[string]string{},
	})
	flags.CertDirectory = certificates
	settings.StaticPodPath = filepath.Join(directory, "manifests")
	machine := &cadvisor.Fake{NodeName: name}
	hollow := kubemark.NewHollowKubelet(
		flags, settings, client, client, machine, runtime.images, runtime, cm.NewStubContainerManager())
	hollow.KubeletDeps.TLSOptions, err = kubelet.InitializeTLS(ctx, flags, settings)
	if err != nil {
		return err
	}

	healthy := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	go func() { klog.Fatal(http.ListenAndServe(health, healthy)) }()
	hollow.Run(ctx)
	return nil
}

// login makes a client's configuration, once there is a certificate for it.
func login(ctx context.Context, name string) (*rest.Config, error) {
	kubeconfig := filepath.Join(directory, "kubelet.conf")
	first := filepath.Join(directory, "bootstrap-kubelet.conf")
	if _, err := os.Stat(kubeconfig); os.IsNotExist(err) {
		if err := bootstrap.LoadClientCert(ctx, kubeconfig, first, certificates, types.NodeName(name)); err != nil {
			return nil, err
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.UserAgent = "hollow-kubelet"
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.QPS = -1
	return config, nil
}
