package rpc

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

const (
	backupChunkBytes = 1 << 20
	// The archive's names. manifestName comes last: where it is missing, the archive was cut off.
	journalDirectory = "journal/"
	manifestName     = "MANIFEST.json"
	// manifestFormat changes when a reader of the format before would be misled.
	manifestFormat = 1
)

// manifest says what a backup is of and what must be in it.
type manifest struct {
	Format     int            `json:"format"`
	Instance   string         `json:"instance"`
	Version    string         `json:"version"`
	CreatedAt  string         `json:"created_at"` // RFC 3339
	TotalBytes int64          `json:"total_bytes"`
	Files      []manifestFile `json:"files"`
}

type manifestFile struct {
	Name   string `json:"name"` // in the archive
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Backup hands out the journal as a tar archive.
func (s system) Backup(_ *ipcdv1.BackupRequest, stream grpc.ServerStreamingServer[ipcdv1.BackupResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	err := s.backup(ctx, &chunks{ctx: ctx, send: stream.Send, data: make([]byte, 0, backupChunkBytes)})
	if err != nil && s.closing.Err() != nil && stream.Context().Err() == nil {
		return shuttingDown()
	}
	return err
}

func (s system) backup(ctx context.Context, out *chunks) error {
	now := s.now()
	archive := tar.NewWriter(out)
	list := manifest{Format: manifestFormat, Instance: s.broker.Instance(), Version: s.version, CreatedAt: now.UTC().Format(time.RFC3339), Files: []manifestFile{}}
	err := s.broker.Backup(ctx, callerFrom(ctx), func(name string, size, total int64, content io.Reader) error {
		out.total = total
		name = journalDirectory + name
		if err := archive.WriteHeader(tarHeader(name, size, now)); err != nil {
			return err
		}
		sum := sha256.New()
		if _, err := io.CopyN(io.MultiWriter(archive, sum, (*doneCounter)(out)), content, size); err != nil {
			return fmt.Errorf("read %s of %d bytes: %w", name, size, err)
		}
		list.TotalBytes += size
		list.Files = append(list.Files, manifestFile{Name: name, Size: size, SHA256: hex.EncodeToString(sum.Sum(nil))})
		return nil
	})
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(tarHeader(manifestName, int64(len(text)), now)); err != nil {
		return err
	}
	if _, err := archive.Write(text); err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return out.flush()
}

// tarHeader is that of a file which only its owner may read: it holds everybody's messages.
func tarHeader(name string, size int64, at time.Time) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: at.Truncate(time.Second)}
}

// chunks cuts what is written into responses.
type chunks struct {
	ctx         context.Context
	send        func(*ipcdv1.BackupResponse) error
	data        []byte // not yet sent
	done, total int64  // bytes of the journal
}

func (c *chunks) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n := min(len(p)-written, cap(c.data)-len(c.data))
		c.data = append(c.data, p[written:written+n]...)
		written += n
		if len(c.data) == cap(c.data) {
			if err := c.flush(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

func (c *chunks) flush() error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if len(c.data) == 0 {
		return nil
	}
	if err := c.send(&ipcdv1.BackupResponse{Data: c.data, DoneBytes: c.done, TotalBytes: c.total}); err != nil {
		return streamEnded{err}
	}
	c.data = c.data[:0]
	return nil
}

// doneCounter counts bytes of the journal that were handed out.
type doneCounter chunks

func (c *doneCounter) Write(p []byte) (int, error) {
	c.done += int64(len(p))
	return len(p), nil
}
