-- wrk script: binary FP32[1,16] inference requests.
local json = '{"inputs":[{"name":"INPUT0","shape":[1,16],"datatype":"FP32","parameters":{"binary_data_size":64}}],"outputs":[{"name":"OUTPUT0","parameters":{"binary_data":true}}]}'
wrk.method = "POST"
wrk.body = json .. string.rep("\0\0\128\63", 16)
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.headers["Inference-Header-Content-Length"] = tostring(#json)
