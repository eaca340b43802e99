def test_x(tiny_bert, tiny_trace, tiny_encoder, trace_model, tmp_path):
    import os
    print(os.listdir(tiny_bert), os.listdir(tiny_trace), os.listdir(tiny_encoder))
    trace_model(tiny_encoder, tmp_path / "e")
