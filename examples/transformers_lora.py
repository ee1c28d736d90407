"""Hugging Face's Trainer with LoRA at each client, on a small transformer with random weights (no
download); the layer averages the adapters. Needs transformers, peft and accelerate.
"""

import tempfile

import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from privfl import PrivateAggregation
from privfl.crypto import SecAgg
from privfl.dp import Clip

torch.manual_seed(0)
shape = BertConfig(
    vocab_size=32,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=16,
)
lora = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])
model = get_peft_model(BertForSequenceClassification(shape), lora)
adapter = {name: p for name, p in model.named_parameters() if p.requires_grad}


def sentences(n):
    """Tokens whose first decides the label."""
    tokens = torch.randint(2, 32, (n, 8))
    return [{"input_ids": t, "labels": int(t[0] > 16)} for t in tokens]


clients = {f"ward {i}": sentences(64) for i in range(3)}
test = sentences(200)
layer = PrivateAggregation(bound=Clip(l2=5.0), channel=SecAgg(bits=24))
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder,
        num_train_epochs=3,
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    for _ in range(3):
        start = {name: p.detach().clone() for name, p in adapter.items()}
        updates = {}
        for client, samples in clients.items():
            for name, p in adapter.items():
                p.data.copy_(start[name])
            Trainer(model=model, args=arguments, train_dataset=samples).train()
            updates[client] = {name: p.detach() - start[name] for name, p in adapter.items()}
        mean, receipt = layer.aggregate(updates)
        for name, p in adapter.items():
            p.data.copy_(start[name] + mean[name])

with torch.no_grad():
    guess = model(torch.stack([one["input_ids"] for one in test])).logits.argmax(dim=1)
accuracy = (guess == torch.tensor([one["labels"] for one in test])).float().mean()
sent = sum(p.numel() for p in adapter.values())
print(
    f"accuracy {accuracy:.3f}; {sent} values of adapter and head a client; {receipt.server_reads}"
)
