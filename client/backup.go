package client

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

const (
	manifestName     = "MANIFEST.json"
	manifestBytesMax = 64 << 20 // the names of 65,536 files, several times over
)

// Backup writes a consistent copy of the daemon's journal to w: what was acknowledged before the call is
// in it. It is a tar archive of the journal's files, whose last file, MANIFEST.json, lists them with their
// SHA-256. Only admins may (root, the daemon's user, members of its admin_group): else ErrAccessDenied.
//
// Backup checks what passes through it and fails unless all of the manifest arrived as it says; what was
// written to w by then is no backup. progress, if not nil, is told how many bytes of the journal have come,
// of how many.
func (c *Client) Backup(ctx context.Context, w io.Writer, progress func(done, total int64)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.system.Backup(ctx, &ipcdv1.BackupRequest{})
	if err != nil {
		return c.rpcError(err, "")
	}
	check := beginArchiveCheck()
	defer check.end()
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return check.end()
		}
		if err != nil {
			return c.rpcError(err, "")
		}
		if _, err := check.to.Write(r.GetData()); err != nil {
			return err
		}
		if _, err := w.Write(r.GetData()); err != nil {
			return fmt.Errorf("write the backup: %w", err)
		}
		if progress != nil {
			progress(r.GetDoneBytes(), r.GetTotalBytes())
		}
	}
}

// archiveCheck reads an archive as it passes and holds it against its manifest.
type archiveCheck struct {
	to     *io.PipeWriter
	result chan error
}

func beginArchiveCheck() *archiveCheck {
	from, to := io.Pipe()
	c := &archiveCheck{to: to, result: make(chan error, 1)}
	go func() {
		err := checkArchive(from)
		_ = from.CloseWithError(err) // Close does not fail
		c.result <- err
	}()
	return c
}

// end says that the archive is complete, and returns what is wrong with it. It may be called again.
func (c *archiveCheck) end() error {
	_ = c.to.Close() // it does not fail
	err := <-c.result
	c.result <- err
	return err
}

// manifestFile is a file of an archive as its manifest lists it.
type manifestFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// checkArchive returns nil if r is an archive that ends in a manifest which lists exactly what is in it.
func checkArchive(r io.Reader) error {
	var files, listed []manifestFile
	complete := false
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return cutOff(err)
		}
		if complete {
			return damagedBackup("%q comes after the manifest", header.Name)
		}
		if header.Name == manifestName {
			if listed, err = readManifest(archive, header.Size); err != nil {
				return err
			}
			complete = true
			continue
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, archive); err != nil {
			return cutOff(err)
		}
		files = append(files, manifestFile{header.Name, header.Size, hex.EncodeToString(sum.Sum(nil))})
	}
	if !complete {
		return cutOff(errors.New("its manifest is missing"))
	}
	if len(files) != len(listed) {
		return damagedBackup("the manifest lists %d files, %d came", len(listed), len(files))
	}
	for i := range files {
		if files[i] != listed[i] {
			return damagedBackup("%q with %d bytes is not what the manifest lists", files[i].Name, files[i].Size)
		}
	}
	_, err := io.Copy(io.Discard, r) // the padding after the archive's end
	return err
}

func readManifest(r io.Reader, size int64) ([]manifestFile, error) {
	if size > manifestBytesMax {
		return nil, damagedBackup("a manifest of %d bytes: it may have %d", size, manifestBytesMax)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, cutOff(err)
	}
	var manifest struct {
		Format int            `json:"format"`
		Files  []manifestFile `json:"files"`
	}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&manifest); err != nil {
		return nil, damagedBackup("its manifest: %v", err)
	}
	if manifest.Format != 1 {
		return nil, newError(reason.Unimplemented, "the backup has format %d, this client knows format 1: use one as new as the daemon", manifest.Format)
	}
	return manifest.Files, nil
}

func cutOff(err error) *Error {
	return newError(reason.Internal, "the backup was cut off (%v): it is of no use, take it again", err).because(err)
}

func damagedBackup(format string, args ...any) *Error {
	return newError(reason.Internal, "the backup is damaged (%s): it is of no use, take it again", fmt.Sprintf(format, args...))
}
