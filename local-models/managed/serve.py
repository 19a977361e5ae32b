"""Serves a GGUF model with llama.cpp on loopback until standard input closes.

Usage: serve.py MODEL PORT ALIAS. Standard input is the leash: it closes when the parent dies, however
it dies, and this server ends with it.
"""

import os
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames = ["127.0.0.1"]
params.port = int(sys.argv[2])
params.model_alias = {sys.argv[3]}
params.n_ctx = 4096
params.n_parallel = 2
# One thread: llama.cpp's threads meet at spin barriers, and a busy machine makes two of them slower.
threads = int(os.environ.get("CONVERGIO_MODEL_THREADS", "1"))
params.cpuparams.n_threads = threads
params.cpuparams_batch.n_threads = threads
# Without a key every program on this machine may ask.
key = os.environ.pop("CONVERGIO_MODEL_KEY", "")
if key:
    params.api_keys = [key]
params.ui = False
params.warmup = True
server = xllamacpp.Server(params)
print("listening", server.listening_address, flush=True)
sys.stdin.buffer.read()
os._exit(0)
