package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	fake "k8s.io/cri-api/pkg/apis/testing"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/types"
	utilexec "k8s.io/utils/exec"
)

const (
	logs    = "/run/hollow"
	streams = "127.0.0.1:10260"
	// How long a process may take to end by itself.
	patience = 2 * time.Second
)

// runtime is Kubernetes's fake container runtime, but that containers of static pods are processes of the node:
// they have its network and its files, which is what kubeadm's manifests ask for anyway.
type runtime struct {
	*fake.FakeRuntimeService
	images *fake.FakeImageService
	stream streaming.Server
	mutex  sync.Mutex
	static map[string]*container
}

type container struct {
	name    string
	argv    []string
	process *os.Process
	ended   chan struct{}
}

func newRuntime() (*runtime, error) {
	r := &runtime{
		FakeRuntimeService: fake.NewFakeRuntimeService(),
		images:             fake.NewFakeImageService(),
		static:             map[string]*container{},
	}
	r.FakeStatus = &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true},
		{Type: runtimeapi.NetworkReady, Status: true},
	}}
	config := streaming.DefaultConfig
	config.Addr = streams
	var err error
	if r.stream, err = streaming.NewServer(config, commands{r}); err != nil {
		return nil, err
	}
	go func() { klog.Fatal(r.stream.Start(true)) }()
	return r, nil
}

func (r *runtime) CreateContainer(ctx context.Context, sandbox string, config *runtimeapi.ContainerConfig,
	pod *runtimeapi.PodSandboxConfig) (string, error) {
	id, err := r.FakeRuntimeService.CreateContainer(ctx, sandbox, config, pod)
	if err == nil && pod.Annotations[types.ConfigSourceAnnotationKey] == types.FileSource {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		r.static[id] = &container{name: config.Metadata.Name, argv: append(config.Command, config.Args...)}
	}
	return id, err
}

func (r *runtime) StartContainer(ctx context.Context, id string) error {
	if c := r.find(id); c != nil {
		if err := c.start(func(code int) { r.mark(id, code) }); err != nil {
			return err
		}
	}
	return r.FakeRuntimeService.StartContainer(ctx, id)
}

func (r *runtime) StopContainer(ctx context.Context, id string, timeout int64) error {
	if c := r.find(id); c != nil {
		c.stop()
	}
	return r.FakeRuntimeService.StopContainer(ctx, id, timeout)
}

func (r *runtime) RemoveContainer(ctx context.Context, id string) error {
	if c := r.find(id); c != nil {
		c.stop()
	}
	r.mutex.Lock()
	delete(r.static, id)
	r.mutex.Unlock()
	return r.FakeRuntimeService.RemoveContainer(ctx, id)
}

func (r *runtime) Exec(_ context.Context, request *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	return r.stream.GetExec(request)
}

func (r *runtime) find(id string) *container {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.static[id]
}

// mark shows that a container ended by itself, for the kubelet to start another.
func (r *runtime) mark(id string, code int) {
	r.Lock()
	defer r.Unlock()
	if c, ok := r.Containers[id]; ok && c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
		c.State = runtimeapi.ContainerState_CONTAINER_EXITED
		c.ExitCode = int32(code)
		c.FinishedAt = time.Now().UnixNano()
	}
}

func (c *container) start(ended func(code int)) error {
	argv := c.argv
	if argv[0] == "etcd" {
		// Its data is thrown away with the test: nothing need be safe from a power cut.
		argv = append(argv, "--unsafe-no-fsync")
	}
	log, err := os.OpenFile(filepath.Join(logs, c.name+".log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command(argv[0], argv[1:]...)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		return err
	}
	c.process, c.ended = command.Process, make(chan struct{})
	go func() {
		klog.Infof("%s ended: %v", c.name, command.Wait())
		close(c.ended)
		ended(command.ProcessState.ExitCode())
	}()
	return nil
}

func (c *container) stop() {
	if c.process == nil {
		return
	}
	_ = c.process.Signal(syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(patience):
		_ = c.process.Kill()
		<-c.ended
	}
}

// commands are what exec runs: in the node, as a static pod's container would.
type commands struct{ runtime *runtime }

func (s commands) Exec(ctx context.Context, id string, argv []string, in io.Reader, out, complaints io.WriteCloser,
	_ bool, _ <-chan remotecommand.TerminalSize) error {
	if s.runtime.find(id) == nil {
		return fmt.Errorf("container %s runs nothing", id)
	}
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	if out != nil {
		command.Stdout = out
	}
	if complaints != nil {
		command.Stderr = complaints
	}
	if in != nil {
		pipe, err := command.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(pipe, in)
			_ = pipe.Close()
		}()
	}
	err := command.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return utilexec.CodeExitError{Err: err, Code: exit.ExitCode()}
	}
	return err
}

func (commands) Attach(context.Context, string, io.Reader, io.WriteCloser, io.WriteCloser, bool,
	<-chan remotecommand.TerminalSize) error {
	return errors.ErrUnsupported
}

func (commands) PortForward(context.Context, string, int32, io.ReadWriteCloser) error {
	return errors.ErrUnsupported
}
