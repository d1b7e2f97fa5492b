package simulate

import (
	"fmt"
	"strconv"
	"strings"
)

// itoa is short for strconv.Itoa.
func itoa(n int) string { return strconv.Itoa(n) }

// tqdmBar writes one state of a tqdm bar, as tqdm 4 does where its output is
// no terminal: ten cells in eighths, elapsed, remaining, rate.
func tqdmBar(name string, n, total int, elapsed float64) string {
	share := 0.0
	if total > 0 {
		share = float64(n) / float64(total)
	}
	eighths := int(share * 80)
	bar := strings.Repeat("█", eighths/8)
	if eighths < 80 {
		bar += string([]rune(" ▏▎▍▌▋▊▉")[eighths%8]) + strings.Repeat(" ", 9-eighths/8)
	}
	remaining, rate := "?", "?it/s"
	if n > 0 && elapsed > 0 {
		perSecond := float64(n) / elapsed
		remaining = tqdmTime(float64(total-n) / perSecond)
		rate = fmt.Sprintf("%5.2fit/s", perSecond)
		if perSecond < 1 {
			rate = fmt.Sprintf("%5.2fs/it", 1/perSecond)
		}
	}
	return fmt.Sprintf("\r%s: %3.0f%%|%s| %d/%d [%s<%s, %s]",
		name, share*100, bar, n, total, tqdmTime(elapsed), remaining, rate)
}

// tqdmTime is mm:ss, or h:mm:ss.
func tqdmTime(seconds float64) string {
	s := int(seconds)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}

// progress shows a bar while its items are worked off: took are their simulated
// seconds. As tqdm does, it is drawn at most every tenth of a second, once when
// the last item is done and once when it is closed. drawn, if there is one, is
// told the share that is done with each drawing.
func (b *builder) progress(who int, name string, took []float64, drawn func(share float64)) {
	show := func(first bool, n int, elapsed float64, end string) {
		b.bar(who, first, tqdmBar(name, n, len(took), elapsed)+end)
	}
	show(true, 0, 0, "")
	elapsed, last := 0.0, 0.0
	for i, t := range took {
		b.wait(t)
		elapsed += t
		if elapsed-last >= 0.1 && i < len(took)-1 || i == len(took)-1 {
			last = elapsed
			if drawn != nil {
				drawn(float64(i+1) / float64(len(took)))
			}
			show(false, i+1, elapsed, "")
		}
	}
	show(false, len(took), elapsed, "\n")
}

// evenly divides seconds over n items.
func evenly(seconds float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = seconds / float64(n)
	}
	return out
}
