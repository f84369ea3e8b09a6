# The rows of a file, from the shell, without a server.

file rows.csv
    x0,x1
    3,4
    -3,-4

$ turnout predict sign.onnx --input rows.csv | cut -c1-20
    {"label": "positive"
    {"label": "negative"

$ turnout predict sign.onnx --input rows.csv --output answers.csv && cut -d, -f1 answers.csv
    2 predictions written to answers.csv
    label
    positive
    negative

file bad.csv
    x0,x1
    3,four

$ turnout predict sign.onnx --input bad.csv
    turnout: ...four...
exit 1

file narrow.csv
    x0
    3

$ turnout predict sign.onnx --input narrow.csv
    turnout: ...
exit 1
