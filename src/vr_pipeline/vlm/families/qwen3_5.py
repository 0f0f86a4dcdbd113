"""Qwen3.5: three of four layers of the decoder are recurrent (gated delta rule)."""

from vr_pipeline.vlm.families.qwen3_vl import TimedFrames


class Qwen35(TimedFrames):
    """Clips as in Qwen3-VL; questions continue copies of the state after the clip; thinking is switched off."""

    model_name = "Qwen3_5ForConditionalGeneration"
    recurrent = True
    lora_targets = (*TimedFrames.lora_targets, "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj")

    default_settings = TimedFrames.default_settings.model_copy(
        update={"after_question": " Answer yes or no.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"}
    )
