package proc

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vramsweep/vramsweep/sweep"
)

// TestMaskValue: flags as results hold them.
func TestMaskValue(t *testing.T) {
	m := NewMasker([]string{"HF_TOKEN=from-the-environment"})
	for _, c := range []struct {
		name string
		give any
		want any
	}{
		{"hf_token", "plain", Masked},
		{"seed", int64(7), int64(7)},
		{"served_model_name", []any{"m", "hf_abcdefghijklmnopqrstuv"}, []any{"m", Masked}},
		{"additional_config", map[string]any{"api_key": "topsecret", "x": true, "max_tokens": "8", "inner": map[string]any{"password": "1"}},
			map[string]any{"api_key": Masked, "x": true, "max_tokens": "8", "inner": map[string]any{"password": Masked}}},
		{"note", "from-the-environment stands here", Masked + " stands here"},
	} {
		if got := m.Value(c.name, c.give); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	for give, want := range map[string]string{
		`--additional-config {"api_key":"topsecret99","x":1}`:                      `--additional-config {"api_key":"[masked]","x":1}`,
		`non-default args: {'hf_token': 'plainword', 'tokenizer': 'Qwen/Qwen3'}`:   `non-default args: {'hf_token': '[masked]', 'tokenizer': 'Qwen/Qwen3'}`,
		`{"eos_token": "<|endoftext|>", "pad_token_id": 151643, "key": "thing99"}`: `{"eos_token": "<|endoftext|>", "pad_token_id": 151643, "key": "thing99"}`,
		`"{\"secret_key\": \"abcdefgh\"}"`:                                         `"{\"secret_key\": \"[masked]\"}"`,
	} {
		if got := m.Text(give); got != want {
			t.Errorf("%s\n%s, want\n%s", give, got, want)
		}
	}
}

func TestSecretName(t *testing.T) {
	for name, want := range map[string]bool{
		"HF_TOKEN": true, "HUGGING_FACE_HUB_TOKEN": true, "WANDB_API_KEY": true, "AWS_SECRET_ACCESS_KEY": true,
		"PGPASSWORD": true, "DB_PASSWD": true, "MY_SECRET_THING": true, "VLLM_API_KEY": true, "--hf-token": true, "--api-key": true,
		"TOKENIZERS_PARALLELISM": false, "MAX_TOKENS": false, "--max-num-batched-tokens": false, "--tokenizer": false,
		"PATH": false, "PWD": false, "KEYBOARD": false, "VLLM_USE_V1": false, "SSH_AUTH_SOCK": false, "HOME": false,
	} {
		if got := sweep.SecretName(name); got != want {
			t.Errorf("SecretName(%q) = %v, want %v", name, got, want)
		}
	}
}

const token = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345"

func TestMaskText(t *testing.T) {
	m := NewMasker([]string{"HF_TOKEN=" + token, "DB_PASSWORD=tr0ub4dor&3", "X_TOKEN=1", "PATH=/usr/bin"}, "s3nsitive")
	for in, want := range map[string]string{
		"token " + token + " end":                           "token [masked] end",
		"hf_zzzzzzzzzzzzzzzzzzzzzzzzzzz":                    "[masked]",
		"pw tr0ub4dor&3":                                    "pw [masked]",
		"1 block, s3nsitive":                                "1 block, [masked]",
		"Authorization: Bearer abcdef123456":                "Authorization: Bearer [masked]",
		"https://user:hunter22@hub/x":                       "https://user:[masked]@hub/x",
		"API_KEY=abcdefgh rest":                             "API_KEY=[masked] rest",
		"https://hub/f?token=abcdefghij&v=2":                "https://hub/f?token=[masked]&v=2",
		"max_num_batched_tokens=8192, key=value":            "max_num_batched_tokens=8192, key=value",
		"GPU KV cache size: 1,234 tokens; /usr/bin hf_hub":  "GPU KV cache size: 1,234 tokens; /usr/bin hf_hub",
		"basic configuration: attention=FLASH_ATTN, sk-ip=": "basic configuration: attention=FLASH_ATTN, sk-ip=",
	} {
		if got := m.Text(in); got != want {
			t.Errorf("Text(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestMaskArgvAndEnv(t *testing.T) {
	m := NewMasker(nil)
	got := m.Argv([]string{"vllm", "serve", "--hf-token", "secret-value", "--api-key=abc", "--max-model-len", "4096", "--enforce-eager", "m"})
	want := []string{"vllm", "serve", "--hf-token", Masked, "--api-key=" + Masked, "--max-model-len", "4096", "--enforce-eager", "m"}
	if !slices.Equal(got, want) {
		t.Errorf("argv %q, want %q", got, want)
	}
	env := m.Env([]string{"HF_TOKEN=x", "EMPTY_TOKEN=", "VLLM_USE_V1=1", "U=http://a:bcdef@h/"})
	if want := map[string]string{"HF_TOKEN": Masked, "EMPTY_TOKEN": "", "VLLM_USE_V1": "1", "U": "http://a:" + Masked + "@h/"}; !maps.Equal(env, want) {
		t.Errorf("env %q, want %q", env, want)
	}
}

func TestMaskWriter(t *testing.T) {
	m := NewMasker([]string{"HF_TOKEN=" + token})
	in := "a\r 10%\r 20%\nwith " + token + "\nlast " + token
	for size := 1; size < len(in); size++ {
		var out bytes.Buffer
		w := m.Writer(&out)
		for c := range slices.Chunk([]byte(in), size) {
			if n, err := w.Write(c); n != len(c) || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got, want := out.String(), strings.ReplaceAll(in, token, Masked); got != want {
			t.Fatalf("in pieces of %d: %q, want %q", size, got, want)
		}
	}
	if err := m.Writer(fullDisk{}).(*maskWriter).Close(); err != nil {
		t.Errorf("nothing to write: %v", err)
	}
}

type counter int

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func FuzzMask(f *testing.F) {
	f.Add("x "+token+" y", 7)
	m := NewMasker([]string{"HF_TOKEN=" + token})
	f.Fuzz(func(t *testing.T, s string, n int) {
		if got := m.Text(s + token + s); strings.Contains(got, token) {
			t.Fatalf("token left in %q", got)
		}
		if got := m.Text(s); strings.Count(got, "\n") != strings.Count(s, "\n") {
			t.Fatalf("lines changed: %q -> %q", s, got)
		}
	})
}

func BenchmarkMaskWriter(b *testing.B) {
	m := NewMasker([]string{"HF_TOKEN=" + token})
	block := bytes.Repeat([]byte("INFO 07-24 10:00:00 [gpu_worker.py:298] Available KV cache memory: 42.17 GiB, dtype=torch.bfloat16\n"), 600)
	w := m.Writer(new(counter))
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		w.Write(block)
	}
}

// TestMaskPlanted: each of these texts holds the secret, in a way in which one was seen.
func TestMaskPlanted(t *testing.T) {
	const key = "s3cr3t-Value/42+x"
	const pem = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\nab=\n-----END KEY-----"
	m := NewMasker([]string{"MY_TOKEN_2=" + key, "TLS_KEY=" + pem, "OPENAI_KEYS=first-of-two,second-of-two"}, `quote"and\slash`)
	unknown := NewMasker(nil)
	for _, c := range []struct {
		m      *Masker
		in     string
		hidden []string
	}{
		{m, `{"x": "s3cr3t-Value\/42+x s3cr3t-Value/42+x"}`, []string{key}},
		{m, "GET /f?a=s3cr3t-Value%2F42%2Bx and s3cr3t-Value%2f42%2bx", []string{"3cr3t"}},
		{m, "one\n" + pem + "\ntwo", []string{"MIIEvQ", "ab="}},
		{m, `{"pem": "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\nab=\n-----END KEY-----"}`, []string{"MIIEvQ", "ab="}},
		{m, "using second-of-two", []string{"second"}},
		{m, `{"a": "quote\"and\\slash", 'b': 'quote"and\\slash'}`, []string{"slash"}},
		{unknown, `non-default args: {'api_key': ['one', 'two-long'], 'model': 'm'}`, []string{"one'", "two-long"}},
		{unknown, `Namespace(api_key=['onekey', 'twokey'], model='m')`, []string{"onekey", "twokey"}},
		{unknown, `['vllm', '--api-key', 'onekey', 'twokey', '--model', 'm']`, []string{"onekey", "twokey"}},
		{unknown, `["vllm", "--hf-token", "onekey9"]`, []string{"onekey9"}},
		{unknown, "vllm serve --custom-pass onekey9 --model m", []string{"onekey9"}},
		{unknown, `api_key = "onekey9"`, []string{"onekey9"}},
		{unknown, `"hf_overrides": {"auth_token": "onekey9", "rope": 1}`, []string{"onekey9"}},
		{unknown, `{\"apiKey\": \"one\\\"key9\"}`, []string{"one", "key9"}},
		{unknown, "X-Api-Key: onekey9", []string{"onekey9"}},
		{unknown, "https://me:onekey9@hub/m?token=twokey9&x=1", []string{"onekey9", "twokey9"}},
		{unknown, "DB_PASS=onekey9 TOKEN_ID=twokey9x", []string{"onekey9", "twokey9"}},
	} {
		got := c.m.Text(c.in)
		for _, hidden := range c.hidden {
			if strings.Contains(got, hidden) {
				t.Errorf("%s\ngives %s", c.in, got)
			}
		}
		if strings.Contains(c.in, "model") && !strings.Contains(got, "m") || strings.Count(got, "\n") != strings.Count(c.in, "\n") {
			t.Errorf("%s\ngives %s: too much is gone", c.in, got)
		}
	}
}

// TestMaskLongStream: no piece of a stream without line ends stops within a secret.
func TestMaskLongStream(t *testing.T) {
	const pem = "line one of the key\nab\ncd\nlast"
	m := NewMasker([]string{"HF_TOKEN=" + token, "A_KEY=" + pem})
	filler := strings.Repeat("x", 1<<20)
	for _, c := range []struct{ in, want string }{
		{filler[:maxLine-longSecret-10] + token + filler, filler[:maxLine-longSecret-10] + Masked + filler},
		{filler[:maxLine-5] + " hf_zzzzzzzzzzzzzzzzzzzzzzzzzzz " + filler, filler[:maxLine-5] + " " + Masked + " " + filler},
		{`api_key="` + filler + filler + filler + `" tail`, `api_key="` + Masked + `" tail`},
		{"a\n" + pem + "\nb\n", "a\n" + Masked + "\n\n\n\nb\n"},
	} {
		for _, size := range []int{3, 1000, 64 << 10, len(c.in)} {
			if size == 3 && len(c.in) > 1000 {
				continue
			}
			var out strings.Builder
			w := m.Writer(&out)
			for piece := range slices.Chunk([]byte(c.in), size) {
				if _, err := w.Write(piece); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if got := out.String(); got != c.want {
				t.Errorf("in pieces of %d: %d bytes %.40q ... %.60q", size, len(got), got, got[max(0, len(got)-60):])
			}
		}
	}
}
