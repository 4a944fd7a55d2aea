package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/ipcd/ipcd/internal/limits"
)

// A backup is a tar archive: the journal's files under journal/, and last the manifest, without which the
// archive was cut off.
const (
	manifestName   = "MANIFEST.json"
	manifestFormat = 1        // newer ones are refused
	manifestLimit  = 16 << 20 // bytes
)

var segmentName = regexp.MustCompile(`^journal/([0-9a-f]{4}\.seg)$`)

// manifest says what a backup is of and what must be in it.
type manifest struct {
	Format     int            `json:"format"`
	Instance   string         `json:"instance"`
	Version    string         `json:"version"`
	CreatedAt  string         `json:"created_at"`
	TotalBytes int64          `json:"total_bytes"`
	Files      []manifestFile `json:"files"`
}

type manifestFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// notBackup is an archive that is none of ours, or not all of one.
type notBackup struct{ why string }

func (e notBackup) Error() string { return e.why }

func truncated(where string) error {
	return notBackup{"the backup is truncated: it ends " + where + "; take it again, or copy it again"}
}

// readBackup reads a backup. Each file of the journal is handed to create, by its name without directory,
// for what to write it to. Only if no error comes back was all of it there, unchanged.
func readBackup(r io.Reader, create func(name string) (io.WriteCloser, error)) (*manifest, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	if err := checkStart(in); err != nil {
		return nil, err
	}
	archive := tar.NewReader(in)
	got := map[string]manifestFile{}
	for last := "at its beginning"; ; {
		h, err := archive.Next()
		switch {
		case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
			return nil, truncated(last + ", before its " + manifestName)
		case errors.Is(err, tar.ErrHeader) && len(got) == 0:
			return nil, notBackup{"it is no backup: ipcctl backup writes a tar archive"}
		case errors.Is(err, tar.ErrHeader):
			return nil, notBackup{"the backup is damaged " + last}
		case err != nil:
			return nil, err
		case h.Typeflag != tar.TypeReg:
			return nil, notBackup{fmt.Sprintf("it is no backup of ipcd: %.80q in it is no regular file", h.Name)}
		case h.Name == manifestName:
			return readManifest(archive, h.Size, got)
		}
		last = "after " + h.Name
		name := segmentName.FindStringSubmatch(h.Name)
		if name == nil {
			return nil, notBackup{fmt.Sprintf("it is no backup of ipcd: there is %.80q in it; only journal/0000.seg to journal/ffff.seg and %s may be", h.Name, manifestName)}
		}
		if _, twice := got[h.Name]; twice {
			return nil, notBackup{fmt.Sprintf("it is no backup of ipcd: %s is in it twice", h.Name)}
		}
		if h.Size <= 0 || h.Size > limits.SegmentBytes {
			return nil, notBackup{fmt.Sprintf("it is no backup of ipcd: %s has %d bytes, and may have 1 to %d", h.Name, h.Size, int64(limits.SegmentBytes))}
		}
		if got[h.Name], err = readSegment(archive, h, name[1], create); err != nil {
			return nil, err
		}
	}
}

// checkStart says what it is, if what stands at the beginning is no tar archive.
func checkStart(in *bufio.Reader) error {
	start, err := in.Peek(4)
	if err == io.EOF {
		return truncated("at its beginning")
	}
	if err != nil {
		return err
	}
	for _, packed := range []struct{ magic, with string }{{"\x1f\x8b", "gzip"}, {"\x28\xb5\x2f\xfd", "zstd"}, {"\xfd7zX", "xz"}} {
		if bytes.HasPrefix(start, []byte(packed.magic)) {
			return notBackup{fmt.Sprintf("it is compressed with %s: unpack it first, as with %s -dc FILE | ipcd restore -", packed.with, packed.with)}
		}
	}
	return nil
}

func readSegment(archive io.Reader, h *tar.Header, name string, create func(string) (io.WriteCloser, error)) (manifestFile, error) {
	w, err := create(name)
	if err != nil {
		return manifestFile{}, err
	}
	sum := sha256.New()
	_, err = io.CopyN(io.MultiWriter(w, sum), archive, h.Size)
	if err := errors.Join(err, w.Close()); errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return manifestFile{}, truncated("within " + h.Name)
	} else if err != nil {
		return manifestFile{}, err
	}
	return manifestFile{Name: h.Name, Size: h.Size, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// readManifest reads the manifest and holds what was read before against it.
func readManifest(archive *tar.Reader, size int64, got map[string]manifestFile) (*manifest, error) {
	if size > manifestLimit {
		return nil, notBackup{fmt.Sprintf("it is no backup of ipcd: its %s has %d bytes, and may have %d", manifestName, size, int64(manifestLimit))}
	}
	text, err := io.ReadAll(io.LimitReader(archive, size))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, truncated("within " + manifestName)
	}
	if err != nil {
		return nil, err
	}
	// The format alone first: all else may have changed with it.
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(text, &version); err != nil || version.Format <= 0 {
		return nil, notBackup{fmt.Sprintf("it is no backup of ipcd: its %s says nothing of its format", manifestName)}
	}
	if version.Format > manifestFormat {
		return nil, notBackup{fmt.Sprintf("the backup was made by a newer ipcd: its format is %d, this ipcd reads up to %d; restore it with the ipcd that made it, or a newer one", version.Format, manifestFormat)}
	}
	m := new(manifest)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, notBackup{fmt.Sprintf("the backup is damaged: %s: %v", manifestName, err)}
	}
	if err := m.check(got); err != nil {
		return nil, err
	}
	if h, err := archive.Next(); err == nil {
		return nil, notBackup{fmt.Sprintf("it is no backup of ipcd: %.80q comes after %s, which is the last", h.Name, manifestName)}
	} else if err != io.EOF {
		return nil, truncated("after " + manifestName)
	}
	return m, nil
}

// check holds the files that were read against those that the manifest tells of.
func (m *manifest) check(got map[string]manifestFile) error {
	if len(m.Files) == 0 {
		return notBackup{"there is no file of a journal in the backup"}
	}
	total := int64(0)
	for _, want := range m.Files {
		have, ok := got[want.Name]
		switch {
		case !ok:
			return notBackup{fmt.Sprintf("the backup is damaged: %.80q is missing", want.Name)}
		case have.Size != want.Size:
			return notBackup{fmt.Sprintf("the backup is damaged: %s has %d bytes, and had %d when it was taken", want.Name, have.Size, want.Size)}
		case have.SHA256 != want.SHA256:
			return notBackup{fmt.Sprintf("the backup is damaged: the SHA-256 of %s is %s, and was %.80q when it was taken", want.Name, have.SHA256, want.SHA256)}
		}
		delete(got, want.Name) // a second one of that name is then missing
		total += want.Size
	}
	for name := range got {
		return notBackup{fmt.Sprintf("the backup is damaged: %s is in it, and was not when it was taken", name)}
	}
	if total != m.TotalBytes {
		return notBackup{fmt.Sprintf("the backup is damaged: its files have %d bytes together, and %d are expected", total, m.TotalBytes)}
	}
	return nil
}
