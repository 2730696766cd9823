// Command store fills containerd's store before containerd ever runs.
//
//	store ROOT PINNED ARCHIVE…
//
// ROOT is containerd's root directory, usually /var/lib/containerd; each ARCHIVE is an OCI or Docker
// archive. The images end up imported, unpacked for the overlayfs snapshotter and marked as the CRI
// plugin marks those that it pulled; PINNED names the one that kubelet must never collect (pause).
//
// It is containerd's own client on containerd's own libraries, only without a daemon between them, and
// with an applier that mounts nothing: a layer goes straight into its snapshot's upper directory. So an
// ordinary RUN of an image build can do it. Layer blobs are dropped once unpacked, which containerd
// itself knows as discard_unpacked_layers.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

const (
	snapshotter  = "overlayfs"
	managedLabel = "io.cri-containerd.image"
	pinnedLabel  = "io.cri-containerd.pinned"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: store ROOT PINNED ARCHIVE…")
		os.Exit(2)
	}
	if err := fill(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "store:", err)
		os.Exit(1)
	}
}

func fill(root, pinned string, archives []string) error {
	ctx := namespaces.WithNamespace(context.Background(), "k8s.io")
	db, err := open(ctx, root)
	if err != nil {
		return err
	}
	client, err := containerd.New("", containerd.WithServices(
		containerd.WithContentStore(db.ContentStore()),
		containerd.WithImageStore(metadata.NewImageStore(db)),
		containerd.WithSnapshotters(map[string]snapshots.Snapshotter{snapshotter: db.Snapshotter(snapshotter)}),
		containerd.WithLeasesService(metadata.NewLeaseManager(db)),
		containerd.WithDiffService(applier{store: db.ContentStore()}),
	))
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if err := load(ctx, client, archive, pinned); err != nil {
			return fmt.Errorf("%s: %w", archive, err)
		}
	}
	_, err = db.GarbageCollect(ctx)
	return err
}

// open returns the metadata store, laid out below root as containerd's plugins lay it out.
func open(ctx context.Context, root string) (*metadata.DB, error) {
	blobs, err := local.NewStore(filepath.Join(root, "io.containerd.content.v1.content"))
	if err != nil {
		return nil, err
	}
	layers, err := overlay.NewSnapshotter(filepath.Join(root, "io.containerd.snapshotter.v1."+snapshotter))
	if err != nil {
		return nil, err
	}
	directory := filepath.Join(root, "io.containerd.metadata.v1.bolt")
	if err := os.MkdirAll(directory, 0o711); err != nil {
		return nil, err
	}
	file, err := bolt.Open(filepath.Join(directory, "meta.db"), 0o644, &bolt.Options{NoFreelistSync: true})
	if err != nil {
		return nil, err
	}
	db := metadata.NewDB(file, blobs, map[string]snapshots.Snapshotter{snapshotter: layers})
	return db, db.Init(ctx)
}

func load(ctx context.Context, client *containerd.Client, archive, pinned string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	records, err := client.Import(ctx, file, containerd.WithDiscardUnpackedLayers())
	if err != nil {
		return err
	}
	for _, record := range records {
		image := containerd.NewImage(client, record)
		if err := image.Unpack(ctx, snapshotter); err != nil {
			return err
		}
		if err := mark(ctx, client, image, record, record.Name == pinned); err != nil {
			return err
		}
		fmt.Println("stored", record.Name)
	}
	return nil
}

// mark does what the CRI plugin would do at its first start: a second record named by the image's
// identifier (its configuration's digest), and its labels on both.
func mark(ctx context.Context, client *containerd.Client, image containerd.Image, record images.Image, pinned bool) error {
	config, err := image.Config(ctx)
	if err != nil {
		return err
	}
	labels := map[string]string{managedLabel: "managed"}
	if pinned {
		labels[pinnedLabel] = "pinned"
	}
	for _, name := range []string{config.Digest.String(), record.Name} {
		marked := images.Image{Name: name, Target: record.Target, Labels: labels}
		_, err := client.ImageService().Create(ctx, marked)
		if errdefs.IsAlreadyExists(err) {
			_, err = client.ImageService().Update(ctx, marked, "labels")
		}
		if err != nil {
			return err
		}
	}
	return nil
}
