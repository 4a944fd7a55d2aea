package shm

import "golang.org/x/sys/unix"

// spinning says whether waiting for another process without sleeping can help: not if it has to run on the same processor.
var spinning = func() bool {
	var set unix.CPUSet
	return unix.SchedGetaffinity(0, &set) == nil && set.Count() > 1
}()
