# Files that are no models are refused in a sentence, before anything is started.

file notes.txt
    Just some text.

$ turnout serve notes.txt
    turnout: notes.txt: ...
exit 1

$ turnout serve missing.onnx
    turnout: ...missing.onnx...
exit 1

file broken.onnx
    this is no graph

$ turnout serve broken.onnx --port 0 --grpc-port 0
    turnout: broken.onnx...
exit 1

$ turnout predict double.onnx --input missing.csv
    turnout: --input: there is no such file; got 'missing.csv'
exit 1
