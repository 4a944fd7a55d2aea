package vfs

import (
	"maps"
	"path/filepath"
	"slices"
)

// crashDir is a directory of Crash. Directories are durable from the start and
// are never removed; what SyncDir is about are the entries of files.
type crashDir struct {
	entries map[string]*inode
	durable map[string]*inode // what a power cut leaves for sure; nil if log is empty
	log     []entryOp         // the changes from durable to entries
}

// entryOp is a change of a directory's entries: a create if create is set, a
// remove if to is empty, otherwise a rename.
type entryOp struct {
	create   *inode
	from, to string
}

func newCrashDir() *crashDir { return &crashDir{entries: map[string]*inode{}} }

// change makes a change that is not durable yet.
func (d *crashDir) change(op entryOp) {
	if len(d.log) == 0 {
		d.durable = maps.Clone(d.entries)
	}
	d.log = append(d.log, op)
	op.apply(d.entries)
}

func (op entryOp) apply(entries map[string]*inode) {
	f := op.create
	if f == nil {
		f = entries[op.from]
		delete(entries, op.from)
	}
	if op.to != "" {
		entries[op.to] = f
	}
}

// sync makes the entries durable.
func (d *crashDir) sync() { d.durable, d.log = nil, nil }

// settle leaves the entries as a power cut does after which the first n of the
// changes are found.
func (d *crashDir) settle(n int) {
	if len(d.log) == 0 {
		return
	}
	for _, op := range d.log[:n] {
		op.apply(d.durable)
	}
	d.entries = d.durable
	d.sync()
}

// names returns the names of the files and directories in d, sorted.
func (d *crashDir) names(dirs map[string]*crashDir, path string) []string {
	names := slices.Collect(maps.Keys(d.entries))
	for dir := range dirs {
		if dir != path && filepath.Dir(dir) == path {
			names = append(names, filepath.Base(dir))
		}
	}
	slices.Sort(names)
	return names
}
