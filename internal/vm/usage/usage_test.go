package usage

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/banger-vm/banger/internal/banger"
)

func TestIdle(t *testing.T) {
	const id banger.VMID = "aaaaaaaaaaaa"
	watched := func(after time.Duration) *Idle {
		i := NewIdle()
		i.Watch(id, after)
		<-i.Poked()
		return i
	}
	// look waits as long as the last look said and returns what is due then.
	look := func(i *Idle, wait time.Duration) (warn, stop int, again time.Duration) {
		time.Sleep(wait) // the bubble's clock
		w, s, again := i.Due()
		return len(w), len(s), again
	}
	t.Run("a VM is warned of a minute before it is stopped, each once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			i := watched(10 * time.Minute)
			_, _, again := i.Due()
			if again != 9*time.Minute {
				t.Fatalf("looks again after %v", again)
			}
			warn, stop, again := look(i, again)
			if warn != 1 || stop != 0 || again != time.Minute || i.Expired(id) {
				t.Fatalf("warn %d, stop %d, again %v", warn, stop, again)
			}
			if warn, stop, again = look(i, again); warn != 0 || stop != 1 || !i.Expired(id) {
				t.Fatalf("warn %d, stop %d, again %v", warn, stop, again)
			}
			if warn, stop, _ = look(i, 0); warn != 0 || stop != 0 {
				t.Fatalf("at once again: warn %d, stop %d", warn, stop)
			}
			if _, stop, _ = look(i, again); stop != 1 {
				t.Fatal("a stop that failed is not tried again")
			}
		})
	})
	t.Run("use puts it off, for as long as it lasts and from its end on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			i := watched(10 * time.Minute)
			i.Use(id, +1)
			if warn, stop, _ := look(i, time.Hour); warn != 0 || stop != 0 || i.Expired(id) {
				t.Fatalf("warn %d, stop %d while in use", warn, stop)
			}
			i.Use(id, -1)
			<-i.Poked()
			if _, stop, again := look(i, 9*time.Minute); stop != 0 || again != time.Minute {
				t.Fatalf("stop %d, again %v", stop, again)
			}
			if _, stop, _ := look(i, time.Minute); stop != 1 {
				t.Fatal("not stopped")
			}
		})
	})
	t.Run("a look that comes late, as after a sleep of the host, still warns before", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			i := watched(10 * time.Minute)
			if warn, stop, again := look(i, 5*time.Hour); warn != 1 || stop != 0 || again != time.Minute {
				t.Fatalf("warn %d, stop %d, again %v", warn, stop, again)
			}
			if _, stop, _ := look(i, time.Minute); stop != 1 {
				t.Fatal("not stopped")
			}
		})
	})
	t.Run("a time that is given to a VM which was unused for long counts from then", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			i := watched(0)
			time.Sleep(time.Hour)
			i.Watch(id, 10*time.Minute)
			if warn, stop, again := look(i, 0); warn != 0 || stop != 0 || again != 9*time.Minute {
				t.Fatalf("warn %d, stop %d, again %v", warn, stop, again)
			}
		})
	})
	t.Run("the record learns of use at most every ten seconds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			i := watched(0)
			if !i.Use(id, +1) || i.Use(id, -1) {
				t.Fatal("the first use must be stored, the second not yet")
			}
			time.Sleep(storeEvery)
			if !i.Use(id, +1) || i.Use("bbbbbbbbbbbb", +1) {
				t.Fatal("a later use must be stored, and that of a VM that does not run not")
			}
		})
	})
	t.Run("one that may run for ever, and one that runs no more, are left alone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			i := watched(0)
			if _, stop, _ := look(i, 1000*time.Hour); stop != 0 {
				t.Fatal("stopped")
			}
			i.Watch(id, time.Minute)
			i.Forget(id)
			if _, stop, _ := look(i, time.Hour); stop != 0 || i.Expired(id) {
				t.Fatal("stopped")
			}
		})
	})
}

func TestLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		expired := make(chan banger.VMID, 9)
		l := NewLeases(func(id banger.VMID) { expired <- id })
		l.Expect("aaaaaaaaaaaa")
		l.Expect("bbbbbbbbbbbb")
		one, two := l.Hold("bbbbbbbbbbbb"), l.Hold("bbbbbbbbbbbb")
		time.Sleep(2 * Grace) // the bubble's clock
		synctest.Wait()
		if len(expired) != 1 || <-expired != "aaaaaaaaaaaa" {
			t.Fatal("only the VM that nobody holds expires")
		}
		one()
		one() // counts once
		time.Sleep(2 * Grace)
		synctest.Wait()
		if len(expired) != 0 {
			t.Fatal("expired while it was held")
		}
		two()
		time.Sleep(2 * Grace)
		synctest.Wait()
		if len(expired) != 1 {
			t.Fatal("not expired after its last holder went")
		}
		l.Expect("cccccccccccc")
		l.Close()
		time.Sleep(2 * Grace)
		synctest.Wait()
		if len(expired) != 1 {
			t.Fatal("expired after Close")
		}
	})
}
