package vfs

import "testing"

// BenchmarkCrashSimulation is one small simulation: four segments of 256 KiB,
// a hundred commits of 2 KiB, a power cut.
func BenchmarkCrashSimulation(b *testing.B) {
	b.ReportAllocs()
	zeros, commit := make([]byte, 256<<10), []byte(filled('a', 2048))
	for i := range b.N {
		rng := seeded(uint64(i))
		c := NewCrash(rng)
		var files []File
		for _, name := range []string{"0", "1", "2", "3"} {
			f, err := c.Create(name)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := f.WriteAt(zeros, 0); err != nil {
				b.Fatal(err)
			}
			files = append(files, f)
		}
		for n := range int64(100) {
			f := files[n/25]
			_, errWrite := f.WriteAt(commit, n%25*2048)
			if errSync := f.Sync(); errWrite != nil || errSync != nil {
				b.Fatal(errWrite, errSync)
			}
		}
		c.Crash(rng)
	}
}
