package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// applier unpacks a layer into a snapshot's upper directory. It knows nothing of mounting: deletions
// become overlayfs whiteouts, as they would be if the snapshot had been mounted and written to.
type applier struct {
	diff.Comparer // never called: nothing is compared here
	store         content.Provider
}

func (a applier) Apply(ctx context.Context, layer ocispec.Descriptor, mounts []mount.Mount, _ ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	upper, parents, err := directories(mounts)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	blob, err := a.store.ReaderAt(ctx, layer)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer blob.Close()
	tar, err := compression.DecompressStream(content.NewReader(blob))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer tar.Close()

	digester := digest.Canonical.Digester()
	hashed := io.TeeReader(tar, digester.Hash())
	size, err := archive.Apply(ctx, upper, hashed,
		archive.WithConvertWhiteout(archive.OverlayConvertWhiteout), archive.WithParents(parents))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	// The padding behind a tar's end is part of the digest.
	padding, err := io.Copy(io.Discard, hashed)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer,
		Digest:    digester.Digest(),
		Size:      size + padding,
	}, nil
}

// directories reads a writable snapshot's mount: a bind mount of its only directory for the first layer,
// else an overlay with its upper directory and its parents, nearest first.
func directories(mounts []mount.Mount) (upper string, parents []string, err error) {
	if len(mounts) != 1 {
		return "", nil, fmt.Errorf("a snapshot with %d mounts", len(mounts))
	}
	if mounts[0].Type == "bind" {
		return mounts[0].Source, nil, nil
	}
	for _, option := range mounts[0].Options {
		if value, found := strings.CutPrefix(option, "upperdir="); found {
			upper = value
		} else if value, found := strings.CutPrefix(option, "lowerdir="); found {
			parents = strings.Split(value, ":")
		}
	}
	if upper == "" {
		return "", nil, fmt.Errorf("a snapshot of type %s without an upper directory", mounts[0].Type)
	}
	return upper, parents, nil
}
