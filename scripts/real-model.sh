# Sourced by the test scripts: serves the managed local model from the folder $data until the script ends,
# and sets the SDKs up that the front doors are made for, as their users have them.

bin=target/debug/convergio
"$bin" --data "$data" models install

url_file=$data/model.url
: >"$url_file"
"$bin" --data "$data" models up --json >"$url_file" &
model=$!
trap 'kill $model ${database:-} 2>/dev/null || true; wait $model ${database:-} 2>/dev/null || true' EXIT
until grep -q url "$url_file"; do kill -0 $model; sleep 0.2; done
CONVERGIO_TEST_MODEL_URL=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["url"])' "$url_file")
export CONVERGIO_TEST_MODEL_URL

sdks=target/test-sdks
[ -x "$sdks/bin/pip" ] || python3 -m venv "$sdks"
"$sdks/bin/pip" install -q --disable-pip-version-check openai==3.57.0 anthropic==2.14.0
export CONVERGIO_TEST_SDKS=$PWD/$sdks/bin/python

# The SDKs for TypeScript, where there is a Node.
if command -v npm >/dev/null; then
    node_sdks=target/test-sdks-node
    mkdir -p "$node_sdks"
    [ -d "$node_sdks/node_modules/openai" ] && [ -d "$node_sdks/node_modules/@anthropic-ai/sdk" ] ||
        npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$node_sdks" \
            openai@7.57.0 @anthropic-ai/sdk@1.12.0
    export CONVERGIO_TEST_TYPESCRIPT=$PWD/$node_sdks
fi
