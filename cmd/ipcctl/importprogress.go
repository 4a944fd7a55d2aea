package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// importSuffix is what the name of a file ends in that tells how far an import has come.
const importSuffix = ".import-progress"

// importProgress stands in a small file beside the one that is imported.
type importProgress struct {
	path  string
	fresh bool // there was none before

	Version  int    `json:"ipcd_import"`
	Queue    string `json:"queue"`  // into which
	Source   string `json:"source"` // what the export's header says
	Exported string `json:"exported"`
	Next     int64  `json:"next"` // the number of the next message, from 1
	Producer string `json:"producer"`
}

// openImportProgress reads how far an earlier import of the same export into the same queue has come.
func openImportProgress(file, queue string, header *exportHeader) (*importProgress, error) {
	p := &importProgress{path: file + importSuffix}
	fresh := importProgress{path: p.path, fresh: true, Version: 1, Queue: queue, Source: header.Queue, Exported: header.ExportTime}
	text, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return &fresh, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, p); err != nil || p.Version != 1 || p.Next < 1 {
		return nil, fmt.Errorf("%s is not what ipcctl import wrote: remove it to begin anew", quoteArg(p.path))
	}
	if p.Queue != queue || p.Source != header.Queue || p.Exported != header.ExportTime {
		return nil, fmt.Errorf("%s is of another import, of an export of %s into %s: finish that, or remove the file", quoteArg(p.path), escapeLine(p.Source), escapeLine(p.Queue))
	}
	return p, nil
}

func (p *importProgress) place() importPlace { return importPlace{p.Next, p.Producer} }

// save replaces the file in one step. It is not made durable: after a power cut an older place, and the ids of the batches, serve.
func (p *importProgress) save(place importPlace) error {
	p.Next, p.Producer = place.message, place.producer
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	// Always the same name, so that what a killed import left is replaced, and O_EXCL, so that no link is followed.
	if err := removeIfThere(p.temporary()); err != nil {
		return err
	}
	f, err := os.OpenFile(p.temporary(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), p.path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the error that matters is known
	}
	return err
}

func (p *importProgress) temporary() string { return p.path + ".new" }

func (p *importProgress) remove() error {
	return errors.Join(removeIfThere(p.temporary()), removeIfThere(p.path))
}

func removeIfThere(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
