package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/sinks"
)

// TestAttackSecrets plants fifty secrets in all the ways in which one was seen to leak and looks for them in every
// file, in every table and on the console.
func TestAttackSecrets(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	p := &planter{dir: t.TempDir()}
	var env []string
	for _, name := range []string{"HF_TOKEN", "HF_TOKEN_2", "OPENAI_KEYS", "DB_PASS", "TOKEN_ID", "PGPASSWORD",
		"AWS_SECRET_ACCESS_KEY", "MY_PAT", "GH_AUTH", "SVC_CREDENTIALS", "X_COOKIE", "apiKey"} {
		env = append(env, name+"="+p.secret()) // printed as it is, as JSON and in a URL
	}
	pem := "-----BEGIN PRIVATE KEY-----\n" + p.secret() + "\n" + p.secret() + "\nab=\n-----END PRIVATE KEY-----"
	odd := p.secret() + `"\/&<>'+ ` + p.secret()
	env = append(env, "TLS_KEY="+pem, "ODD_SECRET="+odd, "TWO_KEYS="+p.secret()+","+p.secret())
	file := writeSweep(t, p.dir, fmt.Sprintf(secretSweep, p.engine(t, pem, odd), p.secret(), p.secret(), p.secret(), p.secret(),
		p.secret()))
	bin := buildProgram(t)
	run := func(args ...string) string {
		t.Helper()
		cmd, out := startIn(t, bin, p.dir, env, args...)
		_ = cmd.Wait() // the engine fails
		return out.String()
	}
	console := run("run", "--output-dir", "out", "--var", "plain="+p.secret(), file)
	console += run("run", "--dry-run", "--var", "plain=unused", file) + run("plan", "--json", "--var", "plain=unused", file)
	console += run("list", "--json", "--var", "plain=unused", file)
	p.broken(t)
	console += run("validate", "broken.hcl") + run("validate", "--json", "broken.hcl")
	p.foreignLog(t)
	console += run("import", "--output-dir", "imported", "foreign.log") + run("explain", "foreign.log")
	console += run("report", "out", "-o", "report.html") + run("compare", "save", "out", "-o", "base.json")
	for _, dir := range []string{"out", "imported"} {
		for _, table := range sinks.Tables() {
			console += run("export", dir, "--table", string(table), "--format", "jsonl")
		}
	}
	if len(p.secrets) < 50 {
		t.Errorf("only %d secrets were planted", len(p.secrets))
	}
	p.look(t, "the console", []byte(console))
	err := filepath.WalkDir(p.dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || p.planted[name] {
			return err
		}
		b, err := os.ReadFile(name)
		p.look(t, strings.TrimPrefix(name, p.dir), b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

const secretSweep = `
variable "plain" {
  type      = string
  sensitive = true
}
sweep "secrets" {
  matrix {
    model                = ["Qwen/Qwen3-0.6B"]
    tensor_parallel_size = [1]
    input_len            = [16]
    output_len           = [16]
    batch_size           = [1]
  }
  engine "vllm" {
    command       = ["/bin/sh", %q]
    api_key       = [%q, %q]
    hf_overrides  = { auth_token = %q, rope = 1 }
    custom_pass   = %q
    model_loader_extra_config = { inner = { apiKey = %q } }
  }
  env { FROM_VARIABLE = var.plain }
  limits { retries = 0 }
}
`

// A planter makes secrets and remembers them, and the files that hold them on purpose.
type planter struct {
	dir     string
	secrets []string
	planted map[string]bool
}

func (p *planter) secret() string {
	p.secrets = append(p.secrets, fmt.Sprintf("Pl4nt-%02d-qZ7x", len(p.secrets)))
	return p.secrets[len(p.secrets)-1]
}

func (p *planter) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if p.planted == nil {
		p.planted = map[string]bool{filepath.Join(p.dir, "chaos.hcl"): true}
	}
	p.planted[path] = true
	return path
}

// unknown are lines with secrets that only their names tell.
func (p *planter) unknown() string {
	var b strings.Builder
	for _, form := range []string{
		"INFO 07-24 10:00:00 [utils.py:1] non-default args: {'api_key': ['%s', '%s'], 'hf_token': '%s', 'model': 'm'}\n",
		"Namespace(api_key=['%s', '%s'], custom_pass='%s')\n",
		"['vllm', '--api-key', '%s', '%s', '--model', 'm', '--hf-token=%s']\n",
		"vllm serve m --api-key %s --db-pass %s --x-token-2 %s\n",
		"{\"outer\": \"{\\\"secret_key\\\": \\\"%s\\\"}\", \"password\": \"%s\", \"accessToken\": \"%s\"}\n",
		"GET https://user:%s@hub.example/m?token=%s&api_key=%s&v=1\n",
		"Authorization: Bearer %s0123456789\nX-Api-Key: %s\nAPI_TOKEN=%s\n",
		"ERROR 07-24 10:00:00 [core.py:1] ValueError: HF_TOKEN_3=%s DB_PASSWORD=%s AUTH_TOKEN: %s\n",
	} {
		fmt.Fprintf(&b, form, p.secret(), p.secret(), p.secret())
	}
	return b.String()
}

// engine is a program that prints what it knows, in many spellings.
func (p *planter) engine(t *testing.T, pem, odd string) string {
	t.Helper()
	asJSON, _ := json.Marshal([]string{pem, odd})
	text := p.unknown() + pem + "\n" + odd + "\n" + string(asJSON) + "\n" + url.QueryEscape(odd) + " " + url.PathEscape(pem) +
		"\n" + strings.Repeat("x", 1<<20-5)
	name := p.write(t, "printed.txt", text)
	return p.write(t, "engine.sh", fmt.Sprintf(`
cat %q
printf '%%s' "$HF_TOKEN"
head -c 1048570 /dev/zero | tr '\0' y
env | tr '\n' ' '
echo
env >&2
echo "$@" >&2
echo "ERROR 07-24 10:00:00 [core.py:1] RuntimeError: no access with $HF_TOKEN_2 and $FROM_VARIABLE, args $*" >&2
exit 1
`, name))
}

// broken is a file with a fault on the lines of secrets.
func (p *planter) broken(t *testing.T) {
	t.Helper()
	p.write(t, "broken.hcl", fmt.Sprintf(`sweep "s" {
  matrix { model = ["Qwen/Qwen3-0.6B"] }
  engine "vllm" {
    api_key = "%s" + nonsense
    hf_token = upper("%s", 1)
    db_pass = [%q, nonsense.x]
  }
}
`, p.secret(), p.secret(), p.secret()))
}

// foreignLog is a log of others.
func (p *planter) foreignLog(t *testing.T) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join("testdata", "foreign.log"))
	if err != nil {
		log = []byte("INFO 07-24 10:00:00 [core.py:69] Initializing a V1 LLM engine (v0.10.0) with config: model='Qwen/Qwen3-0.6B', " +
			"speculative_config=None, tokenizer='Qwen/Qwen3-0.6B', dtype=torch.bfloat16, max_seq_len=4096, tensor_parallel_size=1\n" +
			"INFO 07-24 10:00:09 [gpu_worker.py:276] Available KV cache memory: 42.17 GiB\n")
	}
	p.write(t, "foreign.log", p.unknown()+string(log)+p.unknown())
}

// look finds secrets in what left the program.
func (p *planter) look(t *testing.T, where string, b []byte) {
	t.Helper()
	for _, s := range p.secrets {
		if at := bytes.Index(b, []byte(s)); at >= 0 {
			t.Errorf("%s holds %s: ...%q...", where, s, b[max(0, at-60):min(len(b), at+40)])
		}
	}
}
