package shm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attackEnv makes the test binary a process that attacks the memory of descriptor 3; see TestMain.
const attackEnv = "IPCD_TEST_ATTACK"

// laneForTest is memory as a member has it: mapped writable before it was closed to writers.
func laneForTest(t *testing.T, size int64) (*os.File, *Memory) {
	t.Helper()
	f, err := CreateMemory("test", size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	m, err := Map(f, size, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Populate(); err != nil {
		t.Fatal(err)
	}
	if err := CloseToWriters(f, size); err != nil {
		t.Fatal(err)
	}
	return f, m
}

// Whoever gets a lane to read, and whatever it tries, it does not change a byte of it, nor its size.
func TestMemoryOfOthersCannotBeWritten(t *testing.T) {
	const size = 64 << 10
	f, m := laneForTest(t, size)
	defer m.Release()
	for i := range m.Bytes() {
		m.Bytes()[i] = 0x5a
	}
	before := bytes.Clone(m.Bytes())
	readOnly, err := Reopen(f, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	attack := func(name string, credential *syscall.Credential) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), attackEnv+"=1")
		cmd.ExtraFiles = []*os.File{readOnly}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		t.Logf("%s:\n%s", name, out)
		if n := strings.Count(string(out), "refused: "); n < 9 {
			t.Errorf("%s: only %d attempts were made:\n%s", name, n, out)
		}
		if strings.Contains(string(out), "succeeded: ") {
			t.Errorf("%s:\n%s", name, out)
		}
		if !bytes.Equal(before, m.Bytes()) {
			t.Errorf("%s: the memory was changed:\n%s", name, out)
		}
		if err := Verify(f, size); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	attack("the same user", nil)
	if os.Geteuid() == 0 {
		attack("another user", &syscall.Credential{Uid: 65534, Gid: 65534})
	}
	if m.Bytes()[5] = 1; m.Bytes()[5] != 1 {
		t.Error("its writer cannot write it any more")
	}
}

// attackMemory tries to write the memory of descriptor 3 in every way there is.
func attackMemory() {
	const size = 64 << 10
	try := func(what string, f func() error) {
		if err := f(); err != nil {
			fmt.Printf("refused: %s: %v\n", what, err)
		} else {
			fmt.Printf("succeeded: %s\n", what)
		}
	}
	bad := bytes.Repeat([]byte{0xee}, 4096)
	on := func(which string, fd int) {
		try("write by "+which, func() error { _, err := unix.Pwrite(fd, bad, 0); return err })
		try("map writable by "+which, func() error {
			_, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			return err
		})
		try("shrink by "+which, func() error { return unix.Ftruncate(fd, 4096) })
		try("grow by "+which, func() error { return unix.Ftruncate(fd, 2*size) })
		try("punch a hole by "+which, func() error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
		})
		b, err := unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			fmt.Printf("succeeded: keeping %s from being read: %v\n", which, err)
			return
		}
		try("mprotect by "+which, func() error { return unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE) })
		try("MADV_REMOVE by "+which, func() error { return unix.Madvise(b, unix.MADV_REMOVE) })
		try("/proc/self/mem by "+which, func() error {
			mem, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer mem.Close()
			_, err = mem.WriteAt(bad, int64(uintptr(unsafe.Pointer(&b[0]))))
			return err
		})
		try("process_vm_writev by "+which, func() error {
			local := []unix.Iovec{{Base: &bad[0]}}
			local[0].SetLen(len(bad))
			_, err := unix.ProcessVMWritev(os.Getpid(), local, []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&b[0])), Len: len(bad)}}, 0)
			return err
		})
	}
	on("its descriptor", 3)
	// Its owner and root get a writable descriptor anew, and nothing else.
	again, err := unix.Open("/proc/self/fd/3", unix.O_RDWR, 0)
	if err != nil {
		fmt.Printf("refused: open it anew for writing: %v\n", err)
		return
	}
	on("a descriptor opened anew", again)
}

func TestTamperedMemoryIsNotVerified(t *testing.T) {
	const size = 64 << 10
	for name, tamper := range map[string]func(f *os.File) error{
		"a hole": func(f *os.File) error {
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 4096)
		},
		"sealed seals": func(f *os.File) error {
			_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL)
			return err
		},
		"another mode": func(f *os.File) error { return f.Chmod(0o666) },
	} {
		f, err := CreateMemory("test", size)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Map(f, size, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Populate(); err != nil {
			t.Fatal(err)
		}
		if err := tamper(f); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := CloseToWriters(f, size); err == nil {
			t.Errorf("memory with %s is taken", name)
		}
		m.Release()
		f.Close()
	}
	never, err := CreateMemory("test", size) // nobody populated it
	if err != nil {
		t.Fatal(err)
	}
	defer never.Close()
	if err := CloseToWriters(never, size); !errors.Is(err, ErrNotMemory) {
		t.Errorf("memory without pages: %v", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := Verify(null, size); !errors.Is(err, ErrNotMemory) {
		t.Errorf("/dev/null: %v", err)
	}
}

func TestWhetherAWriterIsLeftCanBeAsked(t *testing.T) {
	f, m := laneForTest(t, 64<<10)
	if yes, err := HasWriter(f); !yes || err != nil {
		t.Errorf("while it is mapped: %v, %v", yes, err)
	}
	m.Release()
	if yes, err := HasWriter(f); yes || err != nil {
		t.Errorf("afterwards: %v, %v", yes, err)
	}
}

// A forked child must not keep a member's memory alive, nor write it.
func TestChildrenDoNotInheritMappings(t *testing.T) {
	_, m := laneForTest(t, 64<<10)
	defer m.Release()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, mapping, found := strings.Cut(string(maps), fmt.Sprintf("%x-", uintptr(unsafe.Pointer(&m.Bytes()[0]))))
	if !found {
		t.Fatal("the mapping is not in /proc/self/smaps")
	}
	_, flags, _ := strings.Cut(mapping, "VmFlags:")
	flags, _, _ = strings.Cut(flags, "\n")
	if !strings.Contains(flags, " dc") { // do not copy on fork; see proc_pid_smaps(5)
		t.Errorf("its flags are %s", flags)
	}
}
