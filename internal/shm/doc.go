// Package shm is the memory of rings: how it is made and sealed, how it is laid out, and how a
// producer writes and consumers read it. Client and daemon use the same code.
//
// A ring is a set of lanes. A lane is a log in shared memory that one producer writes and every consumer
// reads; each consumer has pages of its own, which say how far it has read and whether it sleeps; and the daemon
// has a page with the epoch, which rises when somebody joins or leaves. So no word has two writers, and everybody
// maps what others write read-only. docs/ring-layout.md has the layout and the rules; the files here are about:
//
//	layout.go   offsets, headers and sizes
//	memory_linux.go  mappings; memfd_linux.go: making, sealing and checking what is mapped
//	members.go  who else is there; the epoch
//	writer.go   publishing; room.go: waiting for slow consumers; wake.go: waking sleeping ones; clock.go: the time of frames
//	reader.go   reading; lane.go: one lane of it; view.go: without a copy; park.go: sleeping
//	use.go      closing while somebody is inside
//	observe.go  looking on without taking part
//
// What another process wrote is never believed: positions are checked, frames are copied before they are
// looked at, and a copy counts only if the lane's oldest position has not passed it meanwhile.
package shm
